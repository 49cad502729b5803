"""The shape of what is read back from a file: each key of its type, told by its name where it is not.

Files of a run are JSON, and people edit them: a card or a report with a wrong figure in it is worse than none.
"""

import dataclasses
import functools
import numbers
import types
import typing
from collections.abc import Mapping
from typing import Any

from ..errors import input_error

# Numbers that JSON has no word for.
NOT_FINITE = ("nan", "inf", "-inf")
_WORDS: dict[Any, str] = {
    str: "a text",
    int: "a whole number of at least 0",
    float: "a number",
    bool: "true or false",
    types.NoneType: "null",
}


class SchemaError(Exception):
    """A key that is missing, unknown or of another type; `where` is its path, `expected` and `got` are words."""

    def __init__(self, where: str, expected: str, got: str) -> None:
        super().__init__(f"{where}: expected {expected}, got {got}")
        self.where, self.expected, self.got = where, expected, got


def check_schema(value: Any, kind: Any, where: str = "") -> None:
    """Raise unless a value of JSON has the shape of a type: a dataclass, a mapping, a list, or a union of such.

    Args:
        value: as `json.loads` gives it.
        kind: annotation; `Any` takes what JSON has.
        where: path of the value in its file: "objective.terms[0].weight".

    Raises:
        SchemaError: for the first key that is not as it should be.
    """
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return
    if origin in (typing.Union, types.UnionType):
        _check_union(value, inner, where)
    elif dataclasses.is_dataclass(kind):
        _check_dataclass(value, kind, where)
    elif typing.is_typeddict(kind):
        _check_keys(value, _hints(kind), (), where)
    elif origin is dict:
        for name, item in _mapping(value, where).items():
            check_schema(item, inner[1], _below(where, name))
    elif origin in (list, tuple):
        if not isinstance(value, list):
            raise SchemaError(where, "a list", shown(value))
        for index, item in enumerate(value):
            check_schema(item, inner[0], f"{where}[{index}]")
    elif not _is(value, kind):
        raise SchemaError(where, _WORDS[kind], shown(value))


def build(value: Any, kind: Any) -> Any:
    """What `as_json` wrote, as the type that it was: dataclasses from mappings, numbers that are words as numbers.

    Args:
        value: of JSON, which `check_schema` has accepted.
        kind: annotation; of a union of a type and None that type.
    """
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        kind = next((option for option in inner if option is not types.NoneType), Any)
        return None if value is None else build(value, kind)
    if dataclasses.is_dataclass(kind):
        hints = _hints(typing.cast(Any, kind))
        return typing.cast(Any, kind)(**{name: build(item, hints[name]) for name, item in value.items()})
    if origin is dict:
        return {name: build(item, inner[1]) for name, item in value.items()}
    if origin is list:
        return [build(item, inner[0]) for item in value]
    if origin is tuple:  # of any length, of one type
        return tuple(build(item, inner[0]) for item in value)
    return float(value) if kind is float or (isinstance(value, str) and value in NOT_FINITE) else value


def as_json(value: Any) -> Any:
    """As JSON takes it: dataclasses as mappings, numbers that are not finite as words."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return as_json(dataclasses.asdict(value))
    if isinstance(value, Mapping):
        return {str(name): as_json(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple | set):
        return [as_json(inner) for inner in value]
    if isinstance(value, str | bool | None):
        return value
    if isinstance(value, numbers.Integral):  # numpy's are such, and no int
        return int(value)
    if isinstance(value, numbers.Real):
        number = float(value)
        return number if abs(number) < float("inf") else str(number)
    return str(value)


def _check_union(value: Any, options: tuple[Any, ...], where: str) -> None:
    errors = []
    for option in options:
        try:
            return check_schema(value, option, where)
        except SchemaError as error:
            errors.append(error)
    # The one that came furthest: of a mapping or null, the key inside of the mapping.
    deepest = max(errors, key=lambda error: len(error.where))
    if len(deepest.where) > len(where):
        raise deepest
    raise SchemaError(where, " or ".join(error.expected for error in errors), shown(value))


def _check_dataclass(value: Any, kind: Any, where: str) -> None:
    absent = (dataclasses.MISSING, dataclasses.MISSING)
    needed = [field.name for field in dataclasses.fields(kind) if (field.default, field.default_factory) == absent]
    _check_keys(value, _hints(kind), needed, where)
    names = {field.name for field in dataclasses.fields(kind)}
    for name in value:
        if name not in names:
            raise SchemaError(_below(where, name), "a key that this version has", "an unknown one")


def _check_keys(value: Any, hints: Mapping[str, Any], needed: typing.Collection[str], where: str) -> None:
    """Those keys of a mapping that have a type; others are not looked at."""
    for name in needed:
        if name not in _mapping(value, where):
            raise SchemaError(_below(where, name), "a value", "no such key")
    for name, item in _mapping(value, where).items():
        if name in hints:
            check_schema(item, hints[name], _below(where, name))


@functools.cache
def _hints(kind: type) -> Mapping[str, Any]:
    """The types of the keys of a dataclass or a typed dict; to work out their annotations takes longest of a check."""
    return typing.get_type_hints(kind)


def _mapping(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise SchemaError(where, "an object with keys", shown(value))
    return value


def _is(value: Any, kind: Any) -> bool:
    if kind is float:
        return value in NOT_FINITE if isinstance(value, str) else _is_number(value)
    if kind is int:
        return isinstance(value, int) and _is_number(value) and value >= 0
    return isinstance(value, kind)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _below(where: str, name: str) -> str:
    return f"{where}.{name}" if where else str(name)


def shown(value: Any) -> str:
    """A wrong value in a few words. A text is not quoted: the file may be one of rows."""
    if isinstance(value, str):
        return "a text"
    if isinstance(value, Mapping | list):
        return "an object with keys" if isinstance(value, Mapping) else "a list"
    return "null" if value is None else repr(value)


def wrong_file(file: Any, error: SchemaError, why: str, fix: str) -> ValueError:
    """The error of a file with a key that is not as it should be.

    Args:
        file: its name.
        error: which key, and what of it.
        why: what would go wrong.
        fix: what to do.
    """
    return input_error(expected=f"{error.where} in {file} to be {error.expected}", got=error.got, why=why, fix=fix)
