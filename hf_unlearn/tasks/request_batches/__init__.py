"""Deletion requests carried out in batches and verified: entries of a ledger become runs, and runs entries.

ledger = open_ledger("ledger", [])          # the lab's people
add_request(ledger, "rows.jsonl")
carry_out(ledger)
verify(ledger)
"""

from .carry_out import carry_out
from .opening import add_request, open_ledger
from .verify import verify

__all__ = ["add_request", "carry_out", "open_ledger", "verify"]
