"""The identity of a tokenised row and of a set of rows: SHA-256 of token ids and labels. Alternates do not count."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .token_arrays import flat_lists, row_arrays, token_arrays, token_columns


def row_digest(row: Mapping[str, Any]) -> str:
    """SHA-256 of a row's token ids and labels, 64 hex digits: two rows are the same row when it is the same."""
    return _digest(*row_arrays(row))


def prompt_digest(ids: Sequence[int]) -> str:
    """SHA-256 of a prompt's token ids: the digest of a row without labels."""
    return row_digest({"input_ids": ids, "labels": ()})


def row_digests(rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """`row_digest` of every row, in order."""
    return (_digest(ids, labels) for ids, labels in token_arrays(rows))


def set_digest(rows: Iterable[Mapping[str, Any]]) -> str:
    """SHA-256 of the token ids and labels of every row, in order, 64 hex digits: what records and caches call a set.

    Hashed as the text `[[ids], [labels]]` of each row: so results.json has had it from the first version on, and a
    result of then is still known to be of the same rows.
    """
    digest = hashlib.sha256()
    if isinstance(rows, datasets.Dataset):
        for columns in token_columns(rows):
            digest.update(_texts(*columns))
    else:
        for ids, labels in token_arrays(rows):
            digest.update(f"[{ids.tolist()}, {labels.tolist()}]".encode())
    return digest.hexdigest()


def shared_rows(first: Iterable[Mapping[str, Any]], second: Iterable[Mapping[str, Any]]) -> list[int]:
    """The places in `second` of rows that are in `first` too."""
    known = set(row_digests(first))
    return [place for place, digest in enumerate(row_digests(second)) if digest in known]


def _digest(ids: np.ndarray, labels: np.ndarray) -> str:
    # Side by side without a mark between them: both are of one length, so no other pair of them has the same bytes.
    return hashlib.sha256(ids.tobytes() + labels.tobytes()).hexdigest()


def _texts(ids: pa.ListArray, labels: pa.ListArray) -> memoryview:
    """The text `[[ids], [labels]]` of every row, one after another, written by Arrow without a Python number."""
    joined = []
    for column in (ids, labels):
        values, offsets = flat_lists(column)
        texts = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(values).cast(pa.string()))
        joined.append(pc.binary_join(texts, ", "))
    rows = pc.binary_join_element_wise("[[", joined[0], "], [", joined[1], "]]", "")
    size = pc.sum(pc.binary_length(rows)).as_py()
    return memoryview(rows.buffers()[2])[:size]
