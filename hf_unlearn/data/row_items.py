"""Rows of a tokenised set as the items of a batch: read together, with their alternates, or under another prompt."""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

import datasets
import numpy as np
import pyarrow as pa

from .tokenized_row import IGNORED_LABEL, TokenizedRow, answer_ids, prompt_ids


def read_rows(rows: Any, indices: Sequence[int]) -> list[TokenizedRow]:
    """Rows at `indices`, in that order, in one read where the container can (datasets.Dataset)."""
    if not indices:
        return []
    if isinstance(rows, datasets.Dataset):
        columns = rows[list(indices)]
        return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    return [rows[i] for i in indices]


class RowReader:
    """Reads the rows of one set again and again, as `read_rows` does, and faster where all columns hold integers.

    Where each row lies in Arrow's memory is looked up once: most of a read of a datasets.Dataset is to find out anew
    how the set is stored, and to make the numbers of a row one by one.

    Args:
        rows: a set with a length, whose rows stay what they are.

    Attributes:
        rows: the same.
    """

    def __init__(self, rows: Any) -> None:
        self.rows = rows
        self._columns = _columns(rows) if isinstance(rows, datasets.Dataset) else {}
        # Where rows were selected or shuffled, their places in the table; datasets has no public name for them.
        places = rows._indices if self._columns else None
        self._places: np.ndarray | None = None if places is None else places.column(0).to_numpy()

    def __reduce__(self) -> tuple[type["RowReader"], tuple[Any]]:
        return RowReader, (self.rows,)  # a copy for another process has no copy of the numbers

    def __call__(self, indices: Sequence[int]) -> list[TokenizedRow]:
        """Rows at `indices`, in that order."""
        if not self._columns:
            return read_rows(self.rows, indices)
        places = indices if self._places is None else self._places[np.asarray(indices, dtype=np.int64)].tolist()
        return [{name: value_at(place) for name, value_at in self._columns.items()} for place in places]


class RowReaders:
    """Reads rows of several sets, each by a reader of its own, which is made at its first read."""

    def __init__(self) -> None:
        self._readers: list[RowReader] = []

    def __call__(self, rows: Any, indices: Sequence[int]) -> list[TokenizedRow]:
        """Rows of a set at `indices`, in that order."""
        for reader in self._readers:
            if reader.rows is rows:
                return reader(indices)
        self._readers = [*self._readers[-2:], RowReader(rows)]  # no more than the sets of a pairing
        return self._readers[-1](indices)


class _ListColumn:
    """A column of lists of integers, chunk by chunk as Arrow holds it.

    Args:
        column: without nulls.
    """

    def __init__(self, column: pa.ChunkedArray) -> None:
        chunks = [chunk for chunk in column.chunks if len(chunk)]
        self._chunks = [(chunk.offsets.to_numpy(), chunk.values.to_numpy()) for chunk in chunks]
        self._starts = [0, *accumulate(map(len, chunks))]

    def __call__(self, place: int) -> list[int]:
        """The list at a place."""
        number = bisect_right(self._starts, place) - 1
        offsets, values = self._chunks[number]
        row = place - self._starts[number]
        numbers: list[int] = values[offsets[row] : offsets[row + 1]].tolist()
        return numbers


def _columns(rows: datasets.Dataset) -> dict[str, Callable[[int], Any]]:
    """By column of a set what gives the value at a place; none of them unless all hold integers or lists of integers.

    Nor where there are nulls, or a format is set that makes something else of the values.
    """
    if rows.format["type"] is not None or rows.format["columns"] != rows.column_names:
        return {}
    table = rows.data.table
    columns: dict[str, Callable[[int], Any]] = {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        if column.null_count:
            return {}
        if pa.types.is_integer(column.type):
            columns[name] = column.to_numpy().item
        elif pa.types.is_list(column.type) and pa.types.is_integer(column.type.value_type):
            if any(chunk.values.null_count for chunk in column.chunks):
                return {}
            columns[name] = _ListColumn(column)
        else:
            return {}
    return columns


def mismatch_row(forget: TokenizedRow, retain: TokenizedRow, max_length: int | None) -> TokenizedRow:
    """The retain row's answer under the forget row's prompt; the prompt is masked and never trained."""
    prompt, answer = prompt_ids(forget), answer_ids(retain)
    # The retain row's own labels: what it masks inside its answer (a later user turn, say) stays masked.
    labels = [IGNORED_LABEL] * len(prompt) + list(retain["labels"][-len(answer) :])
    return {"input_ids": [*prompt, *answer][:max_length], "labels": labels[:max_length]}


def with_alternate(row: TokenizedRow) -> dict[str, Any]:
    """A tokenised row as a batch reads it: its ids, labels and index, and its alternate as a row of its own."""
    item: dict[str, Any] = {name: row[name] for name in ("input_ids", "labels", "row") if name in row}
    if "alternate_input_ids" in row:
        ids, labels = row["alternate_input_ids"], row["alternate_labels"]
        item["alternate"] = {"input_ids": ids, "labels": labels, "row": row.get("row", -1)}
    return item
