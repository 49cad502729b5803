"""The type of a command of `hf-unlearn`, and what commands share. Importing this file loads no library."""

import argparse
import json
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple


class Verb(NamedTuple):
    """One command of `hf-unlearn`.

    Attributes:
        help: in a line.
        add_arguments: to its parser.
        run: with the parsed arguments; `given` among them are the words after the command, `out` is where its result
            goes. Returns the exit status, or None for 0.
        open: whether it takes arguments that its parser does not know, and checks them itself.
    """

    help: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int | None]
    open: bool = False


def add_json(parser: argparse.ArgumentParser) -> None:
    """The flag for scripts."""
    parser.add_argument("--json", action="store_true", help="print JSON, for scripts")


def tell(args: argparse.Namespace, text: str, data: Any) -> None:
    """Print what a command found, as text for people or as JSON."""
    print(json.dumps(data, indent=2, default=str) if args.json else text, file=args.out)


def words_of_task(given: Sequence[str], own: Collection[str], flags: Collection[str] = ("json",)) -> list[str]:
    """The words of a command line that are its task's.

    Args:
        given: all of them.
        own: names of the command's arguments that take a value.
        flags: names of those that take none.
    """
    rest, words = [], iter(given)
    for word in words:
        name, is_whole, _ = word.removeprefix("--").partition("=")
        if word.startswith("--") and name in flags:
            continue
        if word.startswith("--") and name in own:
            if not is_whole:
                next(words, None)
            continue
        rest.append(word)
    return rest
