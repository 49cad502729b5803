"""What a ledger says when all its entries are read in order: the requests, and the present weights."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from .chain import Entry

# Events of a ledger. What `data` holds of each stands beside it.
OPENED = "opened"  # task, policy, model (hashes of its weight files), settings (hash of command.json)
ADDED = "added"  # request (id), rows, digests, received, due, scope, reference, policy
PLANNED = "planned"  # requests, way, why (sentences by request), evidence
STARTED = "started"  # batch (number), requests, held (ids), way
DONE = "done"  # batch, requests, way, run (folder's name or None), record (sha256), weights (hashes of files), cost
ABANDONED = "abandoned"  # batch, requests, why: it was started and given up
# figures: name -> number or {value, low, high, n}; label and limit (words) where they are known.
VERIFIED = (
    "verified"  # request, holds, figures, why (sentences), notes, weights, record (sha256 of the verification's file)
)
ERASED = "erased"  # request, why: its rows can no longer be had
REOPENED = "reopened"  # request, why (sentences)
REPLACED = "replaced"  # model (hashes of its weight files): the present model was exchanged from outside
EXPORTED = "exported"  # entries, head

OPEN, CARRIED_OUT, HOLDS = "open", "carried out", "holds"  # of a request
NOTHING, DROP_COHORT, REPLAY, CHECKPOINT, CALIBRATED = "nothing", "drop_cohort", "replay", "checkpoint", "calibrated"
WAYS = {
    NOTHING: "nothing to do: no row was ever trained on",
    DROP_COHORT: "the adapter of the rows' cohort is dropped",
    REPLAY: "the training is replayed without the rows from the last checkpoint before them",
    CHECKPOINT: "the weights go back to a checkpoint from before the rows, and on with the rows that are kept",
    CALIBRATED: "the rows are brought to the level of rows never seen, on top of the present weights",
}


@dataclass
class Request:
    """A deletion request.

    Attributes:
        id: of the request.
        rows: how many it asks to delete.
        digests: salted, of the rows.
        received: date, ISO 8601.
        due: date by which it is to be done; None where none was given.
        scope: what is to be deleted, in the words of who keeps the ledger.
        reference: the requester's, such as the number of a letter; no name is needed.
        policy: by which it is decided whether the deletion holds.
        status: "open", "carried out" or "holds".
        way: in which it was carried out; None where it was not.
        batch: number of the run that carried it out.
        reopened: how often it came back.
        rows_kept: whether its rows can still be had; without them it can neither be held nor be verified again.
        verified: figures and verdict of the last verification, None before one.
        history: entries about it.
    """

    id: str
    rows: int
    digests: list[str]
    received: str
    due: str | None = None
    scope: str = ""
    reference: str = ""
    policy: str = "standard"
    status: str = OPEN
    way: str | None = None
    batch: int | None = None
    reopened: int = 0
    rows_kept: bool = True
    verified: dict[str, Any] | None = None
    history: list[Entry] = field(default_factory=list)


@dataclass
class LedgerState:
    """The requests by id, and the present weights.

    Attributes:
        opened: data of the first entry.
        requests: by id, in the order in which they came.
        base: hashes of the weight files that came from outside last: with the first entry, or in place of them.
        weights: hashes of the present weight files by name.
        run: folder of the present weights in the ledger's `runs`, None for the model that the ledger was opened with.
        unfinished: data of a batch that was started and is not done; None where there is none.
        batches: numbers of those that are done.
    """

    opened: dict[str, Any] = field(default_factory=dict)
    requests: dict[str, Request] = field(default_factory=dict)
    base: dict[str, str] = field(default_factory=dict)
    weights: dict[str, str] = field(default_factory=dict)
    run: str | None = None
    unfinished: dict[str, Any] | None = None
    batches: list[int] = field(default_factory=list)

    def with_status(self, *statuses: str) -> list[Request]:
        """Requests of these statuses, in order."""
        return [request for request in self.requests.values() if request.status in statuses]


def fold(entries: Iterable[Entry]) -> LedgerState:
    """The state after these entries."""
    state = LedgerState()
    for entry in entries:
        _apply(state, entry)
        about = [entry.data.get("request"), *(entry.data.get("requests") or [])]
        for name in about:
            if name in state.requests:
                state.requests[name].history.append(entry)
    return state


def _apply(state: LedgerState, entry: Entry) -> None:
    data = entry.data
    if entry.event == OPENED:
        state.opened, state.base, state.weights = data, data["model"], data["model"]
    elif entry.event == ADDED:
        own = {name: value for name, value in data.items() if name != "request"}
        state.requests[data["request"]] = Request(data["request"], **own)
    elif entry.event == STARTED:
        state.unfinished = data
    elif entry.event == ABANDONED:
        state.unfinished = None
    elif entry.event == DONE:
        _done(state, data)
    elif entry.event == VERIFIED:
        request = state.requests[data["request"]]
        request.verified, request.status = data, HOLDS if data["holds"] else request.status
    elif entry.event == ERASED:
        state.requests[data["request"]].rows_kept = False
    elif entry.event == REOPENED:
        request = state.requests[data["request"]]
        request.status, request.reopened = OPEN, request.reopened + 1
    elif entry.event == REPLACED:
        state.base, state.weights, state.run = data["model"], data["model"], None


def _done(state: LedgerState, data: dict[str, Any]) -> None:
    state.unfinished = None
    state.batches.append(data["batch"])
    if data.get("weights"):
        state.weights, state.run = data["weights"], data["run"]
    for name in data["requests"]:
        request = state.requests[name]
        request.status, request.way, request.batch = CARRIED_OUT, data["way"], data["batch"]
