"""Lengths of the rows of a tokenised set, in tokens, read from Arrow's memory where the rows lie in it."""

from typing import Any

import datasets
import numpy as np

from .pairing import is_stream
from .tokenized_row import answer_start


def row_lengths(rows: Any, *, alternates: bool = True) -> np.ndarray:
    """Tokens of each tokenised row, [rows]; of its alternate where that is longer, unless `alternates` is False."""
    names = ("input_ids", "alternate_input_ids") if alternates else ("input_ids",)
    if not isinstance(rows, datasets.Dataset):
        return np.array([max(len(row.get(name, ())) for name in names) for row in rows])
    columns = [name for name in names if name in rows.column_names]
    return np.max([_list_lengths(rows, name) for name in columns], axis=0)


def longest_row(rows: Any) -> int:
    """Tokens of the longest row of a tokenised set, alternates included; 0 for a stream, whose rows nobody knows."""
    return 0 if is_stream(rows) else int(row_lengths(rows).max())


def longest_mismatch(forget: datasets.Dataset, retain: datasets.Dataset) -> int:
    """Tokens of the longest row that a retain row's answer makes under a forget row's prompt, before it is cut."""
    answers = row_lengths(retain, alternates=False) - _answer_starts(retain)
    return int(_answer_starts(forget).max() + answers.max())


def _answer_starts(rows: datasets.Dataset) -> np.ndarray:
    if "answer_start" not in rows.column_names:
        return np.array([answer_start(row) for row in rows])
    return rows.with_format("numpy")["answer_start"][:]


def _list_lengths(rows: datasets.Dataset, name: str) -> np.ndarray:
    # Arrow knows them; as Python lists every token of the set would be an object.
    chunks = rows.select_columns([name]).with_format("arrow")[:].column(name).chunks
    return np.concatenate([chunk.value_lengths().to_numpy() for chunk in chunks])
