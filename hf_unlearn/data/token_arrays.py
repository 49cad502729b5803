"""Token ids and labels of the rows of a set as numpy arrays, read from Arrow's memory where the rows lie in it."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Any

import datasets
import numpy as np

from .tokenized_row import IGNORED_LABEL

_NUMBERS = np.dtype("<i4")  # the same bytes on every machine


def row_arrays(row: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Ids and labels of one row."""
    return np.asarray(row["input_ids"], _NUMBERS), np.asarray(row["labels"], _NUMBERS)


def token_arrays(rows: Iterable[Mapping[str, Any]]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Ids and labels of each row; of a datasets.Dataset without Python lists, which take minutes for a large set."""
    if not isinstance(rows, datasets.Dataset):
        yield from map(row_arrays, rows)
        return
    table = rows.select_columns(["input_ids", "labels"]).with_format("arrow")[:]
    for batch in table.to_batches():
        yield from zip(_lists(batch.column("input_ids")), _lists(batch.column("labels")), strict=True)


def is_target(labels: np.ndarray) -> np.ndarray:
    """Which tokens of a row a loss is computed of, bool; the first is never predicted, so it is no target."""
    targets = labels != IGNORED_LABEL
    targets[:1] = False
    return targets


def _lists(column: Any) -> Iterator[np.ndarray]:
    """The lists of an Arrow column one by one, as views."""
    values = column.values.to_numpy().astype(_NUMBERS, copy=False)  # all of the memory that the offsets point into
    return (values[start:end] for start, end in pairwise(column.offsets.to_numpy().tolist()))
