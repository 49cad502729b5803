"""`hf-unlearn completion`: a script that lets a shell complete commands, flags and recipes."""

import argparse

from .verb import Verb

_SHELLS = ("bash", "zsh", "tcsh")


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = 'bash: eval "$(hf-unlearn completion bash)" in ~/.bashrc; zsh: likewise in ~/.zshrc'
    parser.add_argument("shell", choices=_SHELLS, help="the shell that is to complete")


def _run(args: argparse.Namespace) -> None:
    import shtab

    from . import make_parser

    print(shtab.complete(make_parser(), args.shell))


COMPLETION = Verb("print a script for tab completion in bash, zsh or tcsh", _arguments, _run)
