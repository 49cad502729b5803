"""The words of a command line: its recipe, flags that nobody knows, flags that are left out."""

from collections.abc import Callable, Collection, Sequence
from typing import Any

from trl import TrlParser

from ..errors import choice_error, input_error


def split_config(arguments: Sequence[str]) -> tuple[str | None, list[str]]:
    """What `--config` names, the last one of several, and the other arguments."""
    config, rest, given = None, [], iter(arguments)
    for word in given:
        if word == "--config":
            config = next(given, None)
            if config is None:
                raise input_error(
                    expected="--config with a recipe",
                    got="--config at the end of the line",
                    why="the run's arguments are read from it",
                    fix="name a YAML file, or a packaged recipe such as harmful_lab",
                )
        elif word.startswith("--config="):
            config = word.split("=", 1)[1]
        else:
            rest.append(word)
    return config, rest


def kept_words(words: Sequence[str], keeps: Callable[[str], bool]) -> list[str]:
    """The words of a command line without some flags, and without their values.

    Args:
        words: flags and values.
        keeps: whether the flag of a name (`output_dir`) stays.
    """
    kept, keep = [], True
    for word in words:
        if word.startswith("--"):
            keep = keeps(word.removeprefix("--").partition("=")[0])
        if keep:
            kept.append(word)
    return kept


def require_known(
    parser: TrlParser, arguments: Sequence[str], recipe: dict[str, Any], own: Collection[str] = ()
) -> None:
    """Raise for keys of a recipe and flags of a command line that no dataclass of the parser has."""
    names = {action.dest for action in parser._actions} - {"help"}
    # Not the parser's own abbreviations: --learning would be read today and be ambiguous tomorrow.
    known = {option for action in parser._actions for option in action.option_strings}
    flags = [word.split("=", 1)[0] for word in arguments if word.startswith("--")]
    unread = [name for name in recipe if name not in names and name != "env"]
    unread += [flag.removeprefix("--") for flag in flags if flag not in known]
    if unread:
        raise choice_error("argument", unread[0], {*names, *own})


def is_secret(flag: str) -> bool:
    """Whether the value of a flag is not to be kept anywhere."""
    return flag.endswith("_token")
