"""Halves of a set by hashes of its rows: what is fitted or chosen on one, is measured on the other."""

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import datasets
import numpy as np
from torch.utils.data import IterableDataset

from ..errors import input_error
from .pairing import is_stream

# Columns that spell a row, the first that are there: token ids, the package's own formats, TOFU's names.
_SPELLINGS = (("input_ids",), ("prompt", "completion"), ("messages",), ("text",), ("question", "answer"))


def calibration_rows(rows: Any) -> Any:
    """The half of a holdout set that levels and anchors are fitted on.

    A row belongs to a half by a hash of its own text (of its token ids where it has them): not by its place, its other
    columns or the other rows. A row given as prompt and completion, as question and answer or as messages is in the
    same half. So whoever measures on `measurement_rows` of the same set measures on rows that the run never read.

    Args:
        rows: a set, or a stream, of which rows are left out as they come.

    Returns:
        about half of the rows, in their order: of a datasets.Dataset and of a stream one of its kind, else a list.

    Raises:
        ValueError: rows without text and token ids.
    """
    return _half(rows, measured=False)


def measurement_rows(rows: Any) -> Any:
    """The other half: rows that suites and membership attacks may call unseen. As `calibration_rows`."""
    return _half(rows, measured=True)


def anchored_places(rows: datasets.Dataset) -> tuple[list[int], list[int]]:
    """Places of the tokenised calibration rows that an anchor holds, and of those on which levels are estimated again.

    Two halves by the same hash of a row as the halves of the holdout, by another of its bits.
    """
    content = rows.with_format(None).select_columns(_spelling(rows.column_names))
    held = [_bit(row, 1) for row in content]
    return [i for i, anchor in enumerate(held) if anchor], [i for i, anchor in enumerate(held) if not anchor]


CALIBRATION, REPORTING = HALVES = ("calibration", "reporting")


def evaluated_half(rows: datasets.Dataset, half: str | None) -> datasets.Dataset:
    """The half of a set's rows by which recipes are chosen (calibration), or the one that is reported (reporting).

    By the same hash of a row as the halves of the holdout, by another of its bits, so that neither says anything about
    the other.

    Args:
        rows: of any set that a model is measured on.
        half: of `HALVES`; None for all rows.

    Raises:
        ValueError: no row is in that half.
    """
    if half is None:
        return rows
    content = rows.with_format(None).select_columns(_spelling(rows.column_names))
    reported = half == REPORTING
    kept = rows.select([place for place, row in enumerate(content) if _bit(row, 2) is reported])
    if not len(kept):
        raise input_error(
            expected=f"rows enough to measure on a half of them ({half})",
            got=f"{len(rows)}, none of them in that half",
            why="a recipe that was chosen by some rows is to be judged by others",
            fix="pass more rows, or raise --limit",
        )
    return kept


def _half(rows: Any, *, measured: bool) -> Any:
    if isinstance(rows, datasets.IterableDataset):
        return rows.filter(partial(_belongs, measured))
    if is_stream(rows):
        return _HalfStream(rows, measured)
    if not isinstance(rows, datasets.Dataset):
        return [row for row in rows if _belongs(measured, row)]
    if not len(rows):
        return rows
    # Those columns alone are read: others may hold much more.
    content = rows.with_format(None).select_columns(_spelling(rows.column_names))
    return rows.select([place for place, row in enumerate(content) if _belongs(measured, row)])


class _HalfStream(IterableDataset):
    """A half of a stream of torch's."""

    def __init__(self, rows: IterableDataset, measured: bool) -> None:
        self._rows, self._measured = rows, measured

    def __iter__(self) -> Iterator[Any]:
        return filter(partial(_belongs, self._measured), self._rows)


def _belongs(measured: bool, row: Mapping[str, Any]) -> bool:
    return _bit(row, 0) is measured


def _bit(row: Mapping[str, Any], place: int) -> bool:
    return bool(hashlib.sha256(_content(row)).digest()[0] >> place & 1)


def _spelling(columns: Collection[str]) -> list[str]:
    """The columns of a row that say what it is."""
    for names in _SPELLINGS:
        if set(names) <= set(columns):
            return list(names)
    raise input_error(
        expected="holdout rows as prompt and completion, messages, text or token ids",
        got=f"columns {', '.join(sorted(columns))}",
        why="which half a row belongs to follows from what it says",
        fix="rename the columns that hold question and answer to prompt and completion",
    )


def _content(row: Mapping[str, Any]) -> bytes:
    """What a row says, without the white space between its parts, which formats write differently."""
    columns = _spelling(row)
    if columns == ["input_ids"]:
        return b"ids" + np.asarray(row["input_ids"], np.dtype("<i4")).tobytes()
    pieces = [piece for name in columns for piece in _texts(row[name])]
    return "".join("".join(pieces).split()).encode()


def _texts(value: Any) -> Iterator[str]:
    """The texts of a column: itself, or those of its messages, in order."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for name in ("content", "value", "text"):
            if value.get(name) is not None:
                yield from _texts(value[name])
        if value.get("tool_calls"):
            yield json.dumps(value["tool_calls"], sort_keys=True)
    elif isinstance(value, Iterable):
        for part in value:
            yield from _texts(part)
