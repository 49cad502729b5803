"""Checks of a benchmark's sets, which come with columns of their own: what is missing, empty or no text."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import datasets

from ..errors import input_error
from .checks import require_columns

_ENDINGS = (".json", ".jsonl", ".parquet")


def split_files(folder: Path, split: str) -> list[Path]:
    """The files of a split in a folder: one of its name, or the shards that the Hub keeps; none where it has none."""
    files = [folder / f"{split}{ending}" for ending in _ENDINGS]
    return [file for file in files if file.is_file()][:1] or sorted(folder.glob(f"{split}-*-of-*.parquet"))


def checked_columns(rows: datasets.Dataset, columns: Collection[str], name: str, benchmark: str) -> datasets.Dataset:
    """The columns of a set that its benchmark reads, each value a text with something in it.

    Args:
        rows: of the set.
        columns: to keep, in this order.
        name: of the set, for the error.
        benchmark: whose set it is.

    Raises:
        ValueError: a missing column, no rows, or an empty or ill-typed text.
    """
    require_rows(rows, columns, name, benchmark)
    rows = rows.select_columns(list(columns))
    for column in columns:
        require_texts(rows, column, name)
    return rows


def require_rows(rows: datasets.Dataset, needed: Collection[str], name: str, benchmark: str) -> None:
    """Raise for a set without rows, or without a column that its benchmark reads."""
    require_columns(needed, rows.column_names, why=f"the measures of {benchmark} read it", set_name=name)
    if len(rows) == 0:
        raise input_error(
            expected=f"at least one row in {name!r}",
            got="an empty set",
            why="a mean over no rows does not exist",
            fix="check any filter or split applied to it",
        )


def require_texts(rows: datasets.Dataset, column: str, name: str) -> None:
    """Raise for a row whose column holds no text, or one of whitespace alone."""
    for index, value in enumerate(rows[column]):
        if not is_text(value):
            raise bad_row(name, index, f"a text in `{column}`", "an empty or missing one")


def is_text(value: Any) -> bool:
    """Whether a value is a string with something to read in it."""
    return isinstance(value, str) and bool(value.strip())


def require_question(name: str, index: int, choices: Any, answer: Any, options: int) -> None:
    """Raise for a question whose choices are not so many texts, or whose answer is not the place of one of them."""
    if not isinstance(choices, list) or len(choices) != options or not all(map(is_text, choices)):
        got = f"{len(choices)} of them" if isinstance(choices, list) else "no list"
        raise bad_row(name, index, f"{options} texts in `choices`", f"{got}, or an empty one")
    if not isinstance(answer, int) or isinstance(answer, bool) or not 0 <= answer < options:
        raise bad_row(name, index, f"the place of the right choice, 0 to {options - 1}, in `answer`", "another value")


def bad_row(name: str, index: int, expected: str, got: str) -> ValueError:
    """The error about one row of a set."""
    return input_error(
        expected=f"{expected} of every row of {name!r}",
        got=f"row {index} with {got}",
        why="each row counts in the mean over the set",
        fix="drop or complete such rows",
    )


def missing_set(benchmark: str, name: str, got: str, fix: str) -> ValueError:
    """The error about a set that a source does not have."""
    return input_error(
        expected=f"{benchmark}'s configuration {name!r}",
        got=got,
        why="it is one of the sets that are asked for",
        fix=fix,
    )
