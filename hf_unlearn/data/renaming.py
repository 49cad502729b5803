"""Columns under other names: what `columns` means, on the command line and in Python."""

from collections.abc import Collection, Mapping
from typing import Any

import datasets

from ..errors import value_error
from .checks import require_columns


def renamed(rows: datasets.Dataset, columns: Mapping[str, str], set_name: str | None = None) -> datasets.Dataset:
    """The rows with other columns, as `load_rows` has them.

    Args:
        rows: of a set.
        columns: old name -> new name; see `load_rows`.
        set_name: of the set, for the error.

    Raises:
        ValueError: a column is missing.
    """
    require_columns(columns, rows.column_names, why="its values become the rows", set_name=set_name)
    columns = _other_half(rows.column_names, columns) | dict(columns)
    return _joined(rows.select_columns(list(columns)), columns)


def check_renaming(columns: Mapping[str, str]) -> None:
    """Raise for what is no mapping of names to names."""
    if not isinstance(columns, Mapping) or not all(isinstance(name, str) for pair in columns.items() for name in pair):
        raise value_error("columns", "a mapping of names to names", columns)


def _other_half(present: Collection[str], columns: Mapping[str, str]) -> dict[str, str]:
    """A `prompt` that is there where columns give the completion alone, or the other way round, under its own name."""
    halves = {"prompt", "completion"}
    missing = halves - {*columns.values()} - {*columns}
    return {name: name for name in missing if name in present and halves & {*columns.values()}}


def _joined(rows: datasets.Dataset, columns: Mapping[str, str]) -> datasets.Dataset:
    """The rows with columns of the new names, those of one name joined."""
    parts = {new: [old for old in columns if columns[old] == new] for new in columns.values()}
    if len(parts) == len(columns):
        return rows.rename_columns(dict(columns))

    def join(row: dict[str, Any]) -> dict[str, Any]:
        return {
            new: row[old[0]] if len(old) == 1 else "\n".join(str(row[name]) for name in old if row[name])
            for new, old in parts.items()
        }

    return rows.map(join, remove_columns=[name for name in rows.column_names if name not in parts])
