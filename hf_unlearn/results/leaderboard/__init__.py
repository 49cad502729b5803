"""Leaderboards: methods over seeds with all that a repetition needs, beside figures that others have published."""

from .board import BOARD_FILE, Board, BoardRun, make_board, read_board_runs
from .write import board_data, board_markdown, board_page, board_text, write_board

__all__ = [
    "BOARD_FILE",
    "Board",
    "BoardRun",
    "board_data",
    "board_markdown",
    "board_page",
    "board_text",
    "make_board",
    "read_board_runs",
    "write_board",
]
