"""A leaderboard as text, Markdown, page and JSON, and all of them in its folder."""

import json
import os
from pathlib import Path
from typing import Any

from ..comparison import Comparison
from ..comparison.formats import table_markdown, table_text
from ..comparison.page import render_comparison
from ..comparison.tables import TESTS, Table, tables_of
from ..comparison.write import comparison_data
from ..files import atomic_write_text
from ..schema import as_json
from .board import BOARD_FILE, FORMAT, Board
from .tables import tables_beside

_TEMPLATE = "leaderboard.html.jinja"
_STORED = ("suite", "command", "date", "code", "runs", "models", "published")


def board_text(board: Board, width: int | None = None) -> str:
    """For a terminal: ranks and figures, then the rows of others; tests and hashes are for the files.

    Args:
        board: to be shown.
        width: in columns; None for the terminal's.
    """
    tables = [*_tables(board.comparison), *tables_beside(board)[:-1]]
    return "\n\n".join(table_text(table, width) for table in tables)


def board_markdown(board: Board) -> str:
    """As Markdown, with the command that makes it again."""
    tables = "\n\n".join(map(table_markdown, [*_tables(board.comparison), *tables_beside(board)]))
    made = f"Made on {board.date} with hf_unlearn {board.code}:\n\n```bash\n{board.command}\n```"
    return f"{tables}\n\n{made}\n"


def _tables(comparison: Comparison) -> list[Table]:
    """Ranks and figures. The tests between so many pairs are on the page and in the JSON."""
    return [table for table in tables_of(comparison) if not table.title.endswith(TESTS)]


def board_page(board: Board) -> str:
    """The page as text, which holds all that it needs."""
    return render_comparison(board.comparison, _TEMPLATE, tables=tables_beside(board), board=board)


def board_data(board: Board) -> dict[str, Any]:
    """As JSON takes it: settings with spread, tests and ranks, each run's figures and hashes, rows of others."""
    stored = {name: getattr(board, name) for name in _STORED}
    return {"format": FORMAT, **as_json(stored), **_without_figures(comparison_data(board.comparison))}


def _without_figures(data: dict[str, Any]) -> dict[str, Any]:
    """The comparison without the figures of single runs, which stand under `runs` with their intervals."""
    for setting in data["settings"]:
        for method in setting["methods"]:
            for run in method["runs"]:
                del run["results"]
    return data


def write_board(board: Board, folder: str | os.PathLike[str]) -> list[Path]:
    """Write leaderboard.html, .md and .json into a folder; what was written, the page first."""
    texts = {
        "leaderboard.html": board_page(board),
        "leaderboard.md": board_markdown(board),
        BOARD_FILE: json.dumps(board_data(board), separators=(",", ":"), allow_nan=False) + "\n",
    }
    return [atomic_write_text(Path(folder) / name, text) for name, text in texts.items()]
