"""Checks a dataclass of arguments, whoever declared it: types by its annotations, numbers by a table of ranges."""

import dataclasses
import enum
import math
import numbers
import os
import types
import typing
from collections.abc import Collection, Mapping
from typing import Any

from ..errors import require_range, value_error

# Name of a field -> bounds, as `require_range` takes them. `allowed` are values outside of them that mean something.
Ranges = Mapping[str, Mapping[str, Any]]

_WORDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a finite number",
    str: "a text",
    dict: "a mapping",
    list: "a list",
}
_TRUTHS = {"true": True, "false": False}


def check_fields(arguments: Any, ranges: Ranges, *, skipped: Collection[str] = ()) -> None:
    """Give every field of a dataclass a value of its annotated type, or raise for the first that has none.

    Text is read strictly, as YAML leaves it where it knows no better ("1e-5", "false"): as the number or truth value
    that the annotation wants and nothing else does. A number is never taken for a truth value, nor the other way.
    Fields that may hold objects of other types are left alone.

    Args:
        arguments: a dataclass object, whose fields are set.
        ranges: of its numbers, wherever one is given.
        skipped: fields that are not looked at.

    Raises:
        ValueError: one line, with the field, what it must be and what it is.
    """
    names = [field.name for field in dataclasses.fields(arguments)]
    values = {name: getattr(arguments, name) for name in names}
    for name, value in checked_values(type(arguments), values, ranges, skipped=skipped).items():
        setattr(arguments, name, value)


def checked_values(
    kind: type, values: Mapping[str, Any], ranges: Ranges, *, skipped: Collection[str] = ()
) -> dict[str, Any]:
    """Values of a dataclass's fields by name, those of no field left out; the rest is as `check_fields` does.

    Args:
        kind: the dataclass.
        values: by name.
        ranges: of its numbers.
        skipped: fields that are not looked at.
    """
    hints, checked = typing.get_type_hints(kind), {}
    for field in dataclasses.fields(kind):
        name = field.name
        if name not in values:
            continue
        value = checked[name] = values[name]
        if name in skipped or (value is None and field.default is None):
            continue
        value = checked[name] = typed(name, value, hints[name])
        bounds = dict(ranges.get(name, {}))
        allowed = bounds.pop("allowed", ())
        if bounds and isinstance(value, int | float) and not isinstance(value, bool) and value not in allowed:
            require_range(name, value, **bounds)
    return checked


def typed(name: str, value: Any, annotation: Any) -> Any:
    """A value as its annotation has it; raises as `check_fields` does."""
    kinds = _kinds(annotation)
    if kinds is None:
        return value
    enums = [kind for kind in kinds if _is_enum(kind)]
    if value is False and any("no" in [member.value for member in kind] for kind in enums):
        value = "no"  # YAML reads `eval_strategy: no` as false
    if enums:
        kinds = [kind for kind in kinds if kind is not str]  # the text of a member, and no other
    for kind in kinds:
        fits, read = _read(value, kind)
        if fits:
            return read
    raise value_error(name, " or ".join(_described(kind) for kind in kinds), value)


def _kinds(annotation: Any) -> list[Any] | None:
    """The types that an annotation allows, text last; None where one of them is not known here."""
    is_union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    kinds: list[Any] = []
    for option in typing.get_args(annotation) if is_union else (annotation,):
        origin = typing.get_origin(option)
        if origin is typing.Literal:
            kinds += [("literal", choice) for choice in typing.get_args(option)]
        elif origin in (dict, list) or option in (*_WORDS, types.NoneType) or _is_enum(option):
            kinds.append(option)
        else:
            return None
    # A number that is written as text may stay text only where text is allowed; numbers come as they are, first.
    return sorted(kinds, key=lambda kind: kind is str)


def _is_enum(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, enum.Enum)


def _read(value: Any, kind: Any) -> tuple[bool, Any]:
    """Whether a value is of a kind, and the value as that kind."""
    if isinstance(kind, tuple):
        return value == kind[1] and type(value) is type(kind[1]), value
    if kind is types.NoneType:
        return value is None, value
    if kind is str:
        return isinstance(value, str | os.PathLike), value
    if kind is bool:
        read = _TRUTHS.get(value.lower()) if isinstance(value, str) else value
        return isinstance(read, bool), read
    if kind in (int, float):
        read = _number(value, kind)
        return read is not None, read
    origin = typing.get_origin(kind)
    if kind is dict or origin is dict:
        return isinstance(value, Mapping), value
    if kind is list or origin is list:
        inner = _kinds(typing.get_args(kind)[0]) if origin is list else None
        fits = isinstance(value, list | tuple)
        return fits and (inner is None or all(any(_read(v, k)[0] for k in inner) for v in value)), value
    return isinstance(value, kind) or value in [member.value for member in kind], value


def _number(value: Any, kind: type) -> int | float | None:
    """A finite number of a kind, None where a value is none. A whole number is a float too, not the other way."""
    if isinstance(value, str):
        try:
            value = kind(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not math.isfinite(value):
        return None
    if isinstance(value, numbers.Integral):
        return int(value)
    return float(value) if kind is float else None


def _described(kind: Any) -> str:
    if isinstance(kind, tuple):
        return repr(kind[1])
    if kind is types.NoneType:
        return "none"
    origin = typing.get_origin(kind) or kind
    if origin is list and typing.get_args(kind) == (str,):
        return "a list of texts"
    return _WORDS[origin] if origin in _WORDS else "one of " + ", ".join(repr(member.value) for member in origin)
