"""`hf-unlearn completion`: a script that lets a shell complete commands, flags and, in bash, their values."""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..tasks import TASKS
from .command import Verb

_SHELLS = ("bash", "zsh", "tcsh")
_FILES = ("run", "runs", "rows", "model", "output_dir", "output", "ledger", "folder")
_PACKAGE = Path(__file__).resolve().parent.parent


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = 'bash: eval "$(hf-unlearn completion bash)" in ~/.bashrc; zsh: likewise in ~/.zshrc'
    parser.add_argument("shell", choices=_SHELLS, help="the shell that is to complete")


def _run(args: argparse.Namespace) -> None:
    import shtab

    from . import make_parser

    parser = make_parser()
    values = _values()
    for action in _actions(parser):
        if action.dest in values:
            vars(action)["complete"] = {"bash": f"_hf_unlearn_{action.dest}"}
        elif action.dest in _FILES:
            vars(action)["complete"] = shtab.FILE
    preamble: Any = {"bash": _functions()}  # by shell, which shtab's annotation does not say
    print(shtab.complete(parser, args.shell, preamble=preamble))


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Of a parser and of those of its commands."""
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for verb in action.choices.values():
                yield from _actions(verb)


def _values() -> dict[str, list[str]]:
    """By argument, the packaged names; a file of one's own goes too."""
    recipes = _PACKAGE / "tasks" / "recipes"
    configs = _PACKAGE / "training" / "launch" / "configs"
    policies = _PACKAGE / "results" / "gate" / "policies"
    return {
        "policy": sorted(path.stem for path in policies.glob("*.yaml")),
        "config": sorted(path.relative_to(recipes).with_suffix("").as_posix() for path in recipes.rglob("*.yaml")),
        "methods": sorted(path.stem for path in (recipes / "methods").glob("*.yaml")),
        "accelerate_config": sorted(path.stem for path in configs.glob("*.yaml")),
        "task": list(TASKS.packaged),  # those of plugins would have to be imported, at every start of a shell
    }


def _functions() -> str:
    lines = []
    for name, words in _values().items():
        files = "" if name == "task" else ' compgen -f -- "$1";'
        lines.append(f"_hf_unlearn_{name}() {{ compgen -W '{' '.join(words)}' -- \"$1\";{files} }}")
    return "\n".join(lines)


COMPLETION = Verb("print a script for tab completion in bash, zsh or tcsh", _arguments, _run)
