"""The identity of a tokenised row and of a set of rows: SHA-256 of token ids and labels. Alternates do not count."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import datasets
import numpy as np

_NUMBERS = np.dtype("<i4")  # the same bytes on every machine


def row_digest(row: Mapping[str, Any]) -> str:
    """SHA-256 of a row's token ids and labels, 64 hex digits: two rows are the same row when it is the same."""
    return _digest(*_arrays(row))


def prompt_digest(ids: Sequence[int]) -> str:
    """SHA-256 of a prompt's token ids: the digest of a row without labels."""
    return row_digest({"input_ids": ids, "labels": ()})


def row_digests(rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """`row_digest` of every row, in order."""
    if not isinstance(rows, datasets.Dataset):
        return map(row_digest, rows)
    return (_digest(ids, labels) for ids, labels in _arrow_rows(rows))


def set_digest(rows: Iterable[Mapping[str, Any]]) -> str:
    """SHA-256 of the token ids and labels of every row, in order, 64 hex digits: what records and caches call a set.

    Hashed as the text `[[ids], [labels]]` of each row: so results.json has had it from the first version on, and a
    result of then is still known to be of the same rows.
    """
    digest = hashlib.sha256()
    for ids, labels in _arrow_rows(rows) if isinstance(rows, datasets.Dataset) else map(_arrays, rows):
        digest.update(f"[{ids.tolist()}, {labels.tolist()}]".encode())
    return digest.hexdigest()


def shared_rows(first: Iterable[Mapping[str, Any]], second: Iterable[Mapping[str, Any]]) -> list[int]:
    """The places in `second` of rows that are in `first` too."""
    known = set(row_digests(first))
    return [place for place, digest in enumerate(row_digests(second)) if digest in known]


def _digest(ids: np.ndarray, labels: np.ndarray) -> str:
    # Side by side without a mark between them: both are of one length, so no other pair of them has the same bytes.
    return hashlib.sha256(ids.tobytes() + labels.tobytes()).hexdigest()


def _arrays(row: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    return np.asarray(row["input_ids"], _NUMBERS), np.asarray(row["labels"], _NUMBERS)


def _arrow_rows(rows: datasets.Dataset) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Ids and labels of each row from Arrow's own memory: as Python lists a large set takes minutes."""
    table = rows.select_columns(["input_ids", "labels"]).with_format("arrow")[:]
    for batch in table.to_batches():
        yield from zip(_lists(batch.column("input_ids")), _lists(batch.column("labels")), strict=True)


def _lists(column: Any) -> Iterator[np.ndarray]:
    """The lists of an Arrow column one by one, as views."""
    values = column.values.to_numpy().astype(_NUMBERS, copy=False)  # all of the memory that the offsets point into
    return (values[start:end] for start, end in pairwise(column.offsets.to_numpy().tolist()))
