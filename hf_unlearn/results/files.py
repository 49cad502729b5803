"""Writes files so that a reader sees a whole file or the former one; reads JSON and YAML that people have edited."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

# JSON can name halves of characters ("\\ud800"), which no file and no terminal can be written with.
_HALVES = re.compile(r"\\u[dD][89a-fA-F]")


def read_json(path: str | os.PathLike[str]) -> Any:
    """What a JSON file holds.

    Raises:
        OSError: it cannot be opened.
        ValueError: it is no JSON, of another encoding, nested beyond what can be read, or has half a character.
    """
    text = Path(path).read_text(encoding="utf-8")
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError("JSON that is nested too deep") from None
    if _HALVES.search(text):
        json.dumps(value, ensure_ascii=False).encode()  # a UnicodeEncodeError is a ValueError
    return value


def read_yaml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The mapping that a YAML file holds.

    Raises:
        ValueError: it holds something else, or a key twice; its text is what the file has, for an error's `got`.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
        stored, twice = yaml.safe_load(text), _written_twice(yaml.compose(text, Loader=yaml.SafeLoader))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"text that is no YAML ({type(error).__name__})") from None
    if not isinstance(stored, dict) or not all(isinstance(key, str) for key in stored):
        raise ValueError("YAML of another shape")
    if twice is not None:
        raise ValueError(f"{twice} twice, of which one would be lost")
    return stored


def _written_twice(node: yaml.Node | None, seen: frozenset[int] = frozenset()) -> str | None:
    """A key that a mapping of a YAML file has twice; YAML would take the last one without a word."""
    if id(node) in seen:  # an alias of what it stands in
        return None
    seen = seen | {id(node)}
    if isinstance(node, yaml.MappingNode):
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        twice = next((name for name in names if names.count(name) > 1), None)
        return twice or next(filter(None, (_written_twice(value, seen) for _, value in node.value)), None)
    inner = node.value if isinstance(node, yaml.SequenceNode) else []
    return next(filter(None, (_written_twice(item, seen) for item in inner)), None)


def atomic_write(path: str | os.PathLike[str], write: Callable[[Path], object]) -> Path:
    """Write a file, its folder too where it is missing; a process that is killed leaves the former file.

    Args:
        path: of the file.
        write: writes all of it to the place that it is given.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        write(unfinished)
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)  # still there when the disk is full
    return target


def atomic_write_text(path: str | os.PathLike[str], text: str) -> Path:
    """`atomic_write` of a text."""
    return atomic_write(path, lambda unfinished: unfinished.write_text(text, encoding="utf-8"))
