"""The type of a command of `hf-unlearn`, its parser, and what commands share. Importing this file loads no library."""

import argparse
import copy
import json
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple, NoReturn

_WIDEST_FLAG = 30  # columns that flags take in a help, before what they mean


class CommandParser(argparse.ArgumentParser):
    """A parser whose `--help` fits a screen: arguments that few people need are listed by `--help_all` alone.

    Attributes:
        seldom: names of the arguments that `--help` leaves out.
        brief: by name, in a line, arguments that `--help` lists as the most used ones, in their order.
    """

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, "formatter_class": _formatter, **settings})
        self.seldom: set[str] = set()
        self.brief: dict[str, str] = {}

    def add_help_all(self) -> None:
        """Add the flag that lists every argument, for a parser that leaves some out."""
        self.add_argument("--help_all", action=_HelpAll, help="list every argument and end")

    def format_help(self) -> str:
        """The help that fits a screen."""
        short = {action.dest: action for action in self._actions if action.dest in self.brief}
        most_used = [_reworded(short[name], words) for name, words in self.brief.items()]
        hidden = {*self.seldom, *self.brief}
        return self._format(hidden, most_used)

    def format_help_all(self) -> str:
        """The help with every argument."""
        return self._format(set(), [])

    def _format(self, hidden: Collection[str], most_used: Sequence[argparse.Action]) -> str:
        formatter = self._get_formatter()
        shown = [action for action in self._actions if action.dest not in hidden]
        formatter.add_usage(self.usage, shown, self._mutually_exclusive_groups)
        formatter.add_text(self.description)
        own = [self._positionals, self._optionals]
        others = [group for group in self._action_groups if group not in own]
        for group in own:
            _add_section(formatter, group, hidden)
        if most_used:
            formatter.start_section("most used")
            formatter.add_arguments(most_used)
            formatter.end_section()
        for group in others:
            _add_section(formatter, group, hidden)
        formatter.add_text(self.epilog)
        return formatter.format_help()


class _HelpAll(argparse.Action):
    """Prints the help with every argument at once, as argparse's own `--help` does."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str | None = None) -> None:
        super().__init__(option_strings, dest, nargs=0, default=argparse.SUPPRESS, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        assert isinstance(parser, CommandParser)
        print(parser.format_help_all(), end="")
        parser.exit()


def _formatter(prog: str) -> argparse.HelpFormatter:
    return argparse.HelpFormatter(prog, max_help_position=_WIDEST_FLAG)


def _reworded(action: argparse.Action, words: str) -> argparse.Action:
    action = copy.copy(action)
    action.help = words
    return action


def _add_section(formatter: argparse.HelpFormatter, group: argparse._ArgumentGroup, hidden: Collection[str]) -> None:
    formatter.start_section(group.title)
    formatter.add_text(group.description)
    formatter.add_arguments([action for action in group._group_actions if action.dest not in hidden])
    formatter.end_section()


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
    add_arguments: Callable[[CommandParser], None]
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
