"""Deletion requests: a ledger from request to proof."""

from .chain import Entry
from .ledger import Ledger
from .state import LedgerState, Request

__all__ = ["Entry", "Ledger", "LedgerState", "Request"]
