"""The command line: a dict of verbs. What a verb does lies in its own module and is imported when it is called."""

import argparse
import os
import sys
from collections.abc import Callable
from typing import NamedTuple


class Verb(NamedTuple):
    """One command of `hf-unlearn`."""

    help: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], None]


def _lab_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seed", type=int, default=0, help="seed of the corpus and of both models (default: 0)")
    parser.add_argument("--cache_dir", help="folder to build in (default: inside the Hugging Face cache)")
    parser.add_argument("--force", action="store_true", help="build again even when the cache has it")


def _run_lab(args: argparse.Namespace) -> None:
    from .lab import load_lab, render_lab

    print(render_lab(load_lab(cache_dir=args.cache_dir, seed=args.seed, force=args.force)))


def _run_methods(args: argparse.Namespace) -> None:
    from .catalog import render_methods

    print(render_methods())


VERBS = {
    "lab": Verb(
        "build (once) and describe the small offline models and data to try things on", _lab_arguments, _run_lab
    ),
    "methods": Verb(
        "list losses, step wrappers and weightings: name, formula, arguments, needs, what they work with, paper",
        lambda parser: None,
        _run_methods,
    ),
}


def make_parser() -> argparse.ArgumentParser:
    """The parser of all verbs."""
    parser = argparse.ArgumentParser(prog="hf-unlearn", description="Make a language model forget.")
    verbs = parser.add_subparsers(title="commands", dest="verb", required=True, metavar="COMMAND")
    for name, verb in VERBS.items():
        verb.add_arguments(verbs.add_parser(name, help=verb.help, description=verb.help.capitalize() + "."))
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run one command; user errors end with their text on standard error and status 2."""
    args = make_parser().parse_args(arguments)
    try:
        VERBS[args.verb].run(args)
        sys.stdout.flush()
    except ValueError as error:
        print(f"hf-unlearn {args.verb}: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # `hf-unlearn methods | head`: nobody reads on, and Python's own flush at exit must not complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


if __name__ == "__main__":
    sys.exit(main())
