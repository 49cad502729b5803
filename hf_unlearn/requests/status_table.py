"""The requests of a ledger as a table for people, and what is under way."""

from dataclasses import dataclass
from typing import Any

from filelock import FileLock, Timeout

from ..results.terminal import terminal_table
from .chain import Entry
from .ledger import LOCK_FILE, Ledger
from .state import (
    CALIBRATED,
    CHECKPOINT,
    DROP_COHORT,
    NOTHING,
    OPEN,
    REPLAY,
    VERIFIED,
    LedgerState,
    Request,
)

# Ways as a table calls them.
WAY_NAMES = {
    NOTHING: "nothing to do",
    DROP_COHORT: "adapter dropped",
    REPLAY: "replayed",
    CHECKPOINT: "from a checkpoint",
    CALIBRATED: "calibrated",
}


@dataclass(frozen=True)
class Status:
    """A ledger at a glance.

    Attributes:
        requests: a mapping for each of them, in order.
        batch: number of the batch that was started and is not done; None where there is none.
        at_work: whether a process holds the ledger now.
        next: what to do now, in a sentence.
    """

    requests: list[dict[str, Any]]
    batch: int | None
    at_work: bool
    next: str


def ledger_status(ledger: Ledger) -> Status:
    """What the ledger says at this moment; it waits for no other process.

    Raises:
        ValueError: an entry was changed or is missing.
    """
    state, at_work = ledger.state(), _is_held(ledger)
    batch = None if state.unfinished is None else state.unfinished["batch"]
    rows = [_row(request, state) for request in state.requests.values()]
    return Status(rows, batch, at_work, _next(state, batch, at_work))


def status_table(status: Status) -> str:
    """The status as text."""
    head = ["id", "rows", "received", "due", "status", "way", "last verification"]
    rows = [[row[name] for name in _COLUMNS] for row in status.requests]
    return "\n".join([terminal_table(head, rows) if rows else "No requests yet.", "", status.next])


_COLUMNS = ("id", "rows", "received", "due", "status", "way", "last_verification")


def _row(request: Request, state: LedgerState) -> dict[str, Any]:
    return {
        "id": request.id,
        "rows": request.rows,
        "received": request.received,
        "due": request.due,
        "status": status_words(request),
        "way": None if request.way is None else WAY_NAMES[request.way],
        "batch": request.batch,
        "last_verification": last_verification(request, state),
    }


def status_words(request: Request) -> str:
    """The status of a request, with a word where it was carried out before and is open again."""
    again = bool(request.reopened) and request.status == OPEN
    words = f"{request.status} (came back)" if again else request.status
    return words if request.rows_kept else f"{words} (rows erased)"


def last_verification(request: Request, state: LedgerState) -> str | None:
    """Day and outcome of the last verification, with a word where the weights were changed since; None before one."""
    entry = _verified(request)
    if entry is None:
        return None
    outcome = "holds" if entry.data["holds"] else "does not hold"
    return f"{entry.time[:10]}: {outcome}{'' if _is_present(entry, state) else ', on earlier weights'}"


def _verified(request: Request) -> Entry | None:
    return next((entry for entry in reversed(request.history) if entry.event == VERIFIED), None)


def _is_present(verified: Entry, state: LedgerState) -> bool:
    return verified.data.get("weights", state.weights) == state.weights


def _next(state: LedgerState, batch: int | None, at_work: bool) -> str:
    if batch is not None:
        names = ", ".join(state.unfinished["requests"]) if state.unfinished else ""
        if at_work:
            return f"Batch {batch} ({names}) is being carried out by a process that holds the ledger; wait for it."
        return f"Batch {batch} ({names}) was cut off; hf-unlearn request run goes on where it was."
    if at_work:
        return "Another process holds the ledger; wait for it."
    if count := len(state.with_status(OPEN)):
        are = "request is" if count == 1 else "requests are"
        return f"{count} {are} open; hf-unlearn request run carries them out."
    last = [_verified(request) for request in state.requests.values() if request.rows_kept]
    if any(entry is None or not _is_present(entry, state) for entry in last):
        return "Not all are verified on the present weights; hf-unlearn request verify does it."
    return "Nothing is open; hf-unlearn request verify tells whether all still hold."


def _is_held(ledger: Ledger) -> bool:
    """Whether another process, or another part of this one, has the lock."""
    lock = FileLock(ledger.folder / LOCK_FILE)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False
