"""Deletion requests: a ledger from request to proof."""

from typing import TYPE_CHECKING, Any

from .chain import Entry
from .ledger import Ledger
from .state import LedgerState, Request

if TYPE_CHECKING:
    from .rows_store import RowsStore

__all__ = ["Entry", "Ledger", "LedgerState", "Request", "RowsStore"]


def __getattr__(name: str) -> Any:
    # Imported on first use: it brings datasets, which `hf-unlearn request status` can do without.
    if name != "RowsStore":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .rows_store import RowsStore

    return RowsStore
