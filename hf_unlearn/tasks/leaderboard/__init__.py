"""Leaderboards: the runs of a board, done in series, and its rows measured again from their weights."""

from .make import BoardRequest, make_leaderboard, plan_board
from .verify import VerifiedRun, verification_words, verify_board

__all__ = ["BoardRequest", "VerifiedRun", "make_leaderboard", "plan_board", "verification_words", "verify_board"]
