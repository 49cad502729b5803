"""Token ids and labels of the rows of a set as numpy arrays, read from Arrow's memory where the rows lie in it."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Any

import datasets
import numpy as np
import pyarrow as pa

from .tokenized_row import IGNORED_LABEL

TOKEN_TYPE = np.dtype("<i4")  # the same bytes on every machine
_BATCH_ROWS = 500  # read together, so that memory does not grow with the set; their text has less than 2 GiB


def row_arrays(row: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Ids and labels of one row."""
    return np.asarray(row["input_ids"], TOKEN_TYPE), np.asarray(row["labels"], TOKEN_TYPE)


def token_arrays(rows: Iterable[Mapping[str, Any]]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Ids and labels of each row; of a datasets.Dataset without Python lists, which take minutes for a large set."""
    if not isinstance(rows, datasets.Dataset):
        yield from map(row_arrays, rows)
        return
    for columns in token_columns(rows):
        yield from zip(*map(_views, columns), strict=True)


def token_columns(rows: datasets.Dataset) -> Iterator[tuple[pa.ListArray, pa.ListArray]]:
    """Ids and labels of a set as columns of lists of int32, some rows at a time."""
    type_ = pa.list_(pa.from_numpy_dtype(TOKEN_TYPE))
    for table in rows.select_columns(["input_ids", "labels"]).with_format("arrow").iter(_BATCH_ROWS):
        ids, labels = (table[name].combine_chunks().cast(type_) for name in ("input_ids", "labels"))
        yield ids, labels


def flat_lists(lists: pa.ListArray) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of a column of lists one after another, [T], and where those of each row begin and end, [R + 1]."""
    offsets = lists.offsets.to_numpy()
    # A column that is part of another one shares its memory: the offsets say which.
    return lists.values.to_numpy()[offsets[0] : offsets[-1]], offsets - offsets[0]


def is_target(labels: np.ndarray) -> np.ndarray:
    """Which tokens of a row a loss is computed of, bool; the first is never predicted, so it is no target."""
    targets = labels != IGNORED_LABEL
    targets[:1] = False
    return targets


def _views(lists: pa.ListArray) -> Iterator[np.ndarray]:
    """The lists one by one, in the column's own memory."""
    values, offsets = flat_lists(lists)
    return (values[start:end] for start, end in pairwise(offsets.tolist()))
