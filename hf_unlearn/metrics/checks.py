"""Checks of a metric's input before it is computed: empty input, wrong kinds, lengths that differ."""

from collections.abc import Iterable, Mapping, Sized
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import input_error, nearest

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


def numbers(name: str, values: Any) -> Floats:
    """Values as an array [N] of floats, N >= 1; NaN and infinities stay as they are.

    Args:
        name: of the argument, for the message.
        values: list, array or CPU tensor.

    Raises:
        ValueError: no values, or something that is not a list of numbers.
    """
    array = _array(name, values)
    if array.ndim != 1 or array.dtype.kind not in "biuf":
        raise _wrong_kind(name, "one number a row", array)
    return array.astype(np.float64)


def number_table(name: str, values: Any) -> NDArray[Any]:
    """Values as an array [N] or [N, columns] of numbers of their own type, N >= 1."""
    array = _array(name, values)
    if array.ndim > 2 or array.dtype.kind not in "biuf":
        raise _wrong_kind(name, "one number or one row of numbers each", array)
    return array


def flags(name: str, values: Any) -> Flags:
    """Values as an array [N] of bools, N >= 1; 0 and 1 count as such, any other number is refused."""
    array = _array(name, values)
    countable = array.dtype.kind == "b" or (array.dtype.kind in "iuf" and np.isin(array, (0, 1)).all())
    if array.ndim != 1 or not countable:
        raise _wrong_kind(name, "True or False for every row", array)
    return array.astype(np.bool_)


def number_rows(name: str, rows: Any) -> list[Floats]:
    """Rows of numbers, each as an array of one or more floats; their lengths may differ."""
    return [numbers(f"{name}[{index}]", row) for index, row in enumerate(_items(name, rows))]


def flag_rows(name: str, rows: Any) -> list[Flags]:
    """Rows of bools, each as an array of one or more; their lengths may differ."""
    return [flags(f"{name}[{index}]", row) for index, row in enumerate(_items(name, rows))]


def strings(name: str, values: Any) -> list[str]:
    """Values as a list of one or more strings; an empty string is an answer like any other."""
    items = _items(name, values)
    for index, item in enumerate(items):
        if not isinstance(item, str):
            raise input_error(
                expected=f"{name} to hold strings",
                got=f"{type(item).__name__} in row {index}",
                why="the metric compares words",
                fix="pass one decoded string a row",
            )
    return items


def same_lengths(**given: Sized) -> None:
    """Raise where arguments that belong together row by row have different lengths."""
    lengths = {name: len(values) for name, values in given.items()}
    if len(set(lengths.values())) > 1:
        raise input_error(
            expected=f"{' and '.join(lengths)} of one length",
            got=", ".join(f"{length} in {name}" for name, length in lengths.items()),
            why="row i of one belongs to row i of the others",
            fix="pass the same rows in the same order for each",
        )


def same_row_lengths(name: str, rows: list[Floats], **others: list[Floats]) -> None:
    """Raise where rows that belong together token by token have different lengths."""
    same_lengths(**{name: rows}, **others)
    for other, other_rows in others.items():
        for index, (row, other_row) in enumerate(zip(rows, other_rows, strict=True)):
            same_lengths(**{f"{name}[{index}]": row, f"{other}[{index}]": other_row})


def share(name: str, value: float, *, zero: bool) -> float:
    """A share of a whole: at most 1, above 0 or (where `zero`) at least 0."""
    if not (0 <= value <= 1) or (value == 0 and not zero):
        raise input_error(
            expected=f"{name} {'from 0' if zero else 'above 0 and'} {'to' if zero else 'up to'} 1",
            got=repr(value),
            why="it is a share of rows or tokens",
            fix=f"pass a fraction: {name}=0.4 stands for 40 percent",
        )
    return value


def choice(name: str, value: str, options: Iterable[str]) -> str:
    """A word among known ones."""
    options = tuple(options)
    if value not in options:
        raise input_error(
            expected=f"{name} among {', '.join(options)}",
            got=repr(value),
            why="each stands for another formula",
            fix=nearest(str(value), options),
        )
    return value


def divisor(name: str, value: float, denominator: float, why: str) -> float:
    """A denominator that can be divided by; an invented one would turn into an invented result."""
    if not np.isfinite(denominator) or denominator == 0:
        raise input_error(
            expected=f"{name} to be a number that can be divided by",
            got=repr(value),
            why=why,
            fix="measure the model that it stands for on the same rows, or leave this metric out",
        )
    return denominator


def _array(name: str, values: Any) -> NDArray[Any]:
    if values is None or isinstance(values, str | bytes | Mapping):
        raise _not_rows(name, values)
    try:
        array = np.asarray(values)
    except (TypeError, ValueError, RuntimeError):  # rows of several lengths, or a tensor that numpy cannot read
        raise _not_rows(name, values) from None
    if array.ndim == 0:
        raise _not_rows(name, values)
    if len(array) == 0:
        raise _no_rows(name)
    return array


def _items(name: str, values: Any) -> list[Any]:
    if values is None or isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        raise _not_rows(name, values)
    items = list(values)
    if not items:
        raise _no_rows(name)
    return items


def _no_rows(name: str) -> ValueError:
    return input_error(
        expected=f"{name} with one or more rows",
        got="none",
        why="a metric of nothing has no value, and 0 would read as a result",
        fix=f"pass the rows, or leave out the metric that needs {name}",
    )


def _not_rows(name: str, values: Any) -> ValueError:
    return input_error(
        expected=f"{name} as a list or an array",
        got=type(values).__name__,
        why="the metric is taken over rows",
        fix=f"pass {name}=[...], one item a row",
    )


def _wrong_kind(name: str, wanted: str, array: NDArray[Any]) -> ValueError:
    return input_error(
        expected=f"{name} to hold {wanted}",
        got=f"{array.dtype} values of shape {list(array.shape)}",
        why="anything else would be counted as a number that it is not",
        fix="pass plain Python or numpy values, one list of them",
    )
