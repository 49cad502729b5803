"""What the page of an export says of a ledger, in words: from its entries alone, without rows, digests or paths."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

from ..metrics.description import MetricDescription
from ..metrics.registry import METRIC_DESCRIPTIONS
from ..results.redaction import redacted
from .chain import Entry
from .state import (
    ABANDONED,
    ADDED,
    CARRIED_OUT,
    DONE,
    ERASED,
    EXPORTED,
    HOLDS,
    OPEN,
    OPENED,
    PLANNED,
    REOPENED,
    REPLACED,
    STARTED,
    VERIFIED,
    WAYS,
    LedgerState,
    Request,
)
from .status_table import WAY_NAMES, last_verification, status_words

_BADGES = {OPEN: "open", CARRIED_OUT: "carried-out", HOLDS: "holds"}


@dataclass(frozen=True)
class Done:
    """How a request was carried out, once."""

    day: str
    batch: int
    way: str
    meaning: str
    why: list[str]
    held: list[str]
    cost: str
    weights: str


@dataclass(frozen=True)
class Verified:
    """A verification of a request."""

    day: str
    number: int
    holds: bool
    why: list[str]
    notes: list[str]
    figures: list[tuple[str, str, str]]  # name, value with its interval, what it had to be
    weights: str


@dataclass(frozen=True)
class Section:
    """What the page says of a request."""

    request: Request
    anchor: str
    status: str
    badge: str
    time: str
    late: bool
    last_verification: str
    done: list[Done]
    verified: list[Verified]
    reopened: list[tuple[str, list[str]]]


def sections(state: LedgerState, entries: Sequence[Entry], today: date) -> list[Section]:
    """The requests of a ledger, in order."""
    names = weights_names(entries)
    return [
        _section(number, request, names, today, last_verification(request, state))
        for number, request in enumerate(state.requests.values(), 1)
    ]


def weights_names(entries: Sequence[Entry]) -> list[tuple[dict[str, str], str]]:
    """Every set of weights of the ledger, by the hashes of its files, with what the page calls it."""
    names: list[tuple[dict[str, str], str]] = []
    for entry in entries:
        if entry.event in (OPENED, REPLACED):
            is_first = entry.event == OPENED
            word = "the model as it was" if is_first else f"the model put in its place in entry {entry.number}"
            names.append((entry.data["model"], word))
        elif entry.event == DONE and entry.data.get("weights"):
            names.append((entry.data["weights"], f"the model after batch {entry.data['batch']}"))
    return names


def timeline(entries: Sequence[Entry]) -> Iterator[tuple[Entry, str, str]]:
    """Every entry with its time for people and what happened, as a sentence."""
    for entry in entries:
        yield entry, f"{entry.time[:10]} {entry.time[11:16]} UTC", redacted(_happened(entry))


def _section(
    number: int, request: Request, names: Sequence[tuple[dict[str, str], str]], today: date, last: str | None
) -> Section:
    done = [entry for entry in request.history if entry.event == DONE]
    time, late = _time(request, done[-1].time[:10] if done else None, today)
    badge = "came-back" if request.reopened and request.status == OPEN else _BADGES[request.status]
    return Section(
        request=redacted(replace(request, digests=[], history=[], verified=None)),
        anchor=f"request-{number}",
        status=status_words(request),
        badge=badge,
        time=time,
        late=late,
        last_verification=last or "-",
        done=[_done(entry, request, names) for entry in done],
        verified=[_verified(entry, names) for entry in request.history if entry.event == VERIFIED],
        reopened=[
            (entry.time[:10], _sentences(entry.data.get("why")))
            for entry in request.history
            if entry.event == REOPENED
        ],
    )


def _time(request: Request, done: str | None, today: date) -> tuple[str, bool]:
    """How its date compares with the day on which it was done, or with today, and whether it is late."""
    if request.due is None:
        return "no date was given", False
    try:
        due = date.fromisoformat(request.due[:10])
        is_open = request.status == OPEN or done is None
        days = (due - (today if is_open else date.fromisoformat(str(done)))).days
    except ValueError:  # a date in words
        return "", False
    count = f"{abs(days)} day" + ("" if abs(days) == 1 else "s")
    if is_open:
        return ("due today" if days == 0 else f"{count} left" if days > 0 else f"{count} late"), days < 0
    return ("done on the day" if days == 0 else f"done {count} early" if days > 0 else f"done {count} late"), days < 0


def _done(entry: Entry, request: Request, names: Sequence[tuple[dict[str, str], str]]) -> Done:
    data = entry.data
    planned = [one for one in request.history if one.event == PLANNED and one.number < entry.number]
    why = planned[-1].data.get("why") if planned and planned[-1].data.get("way") == data["way"] else None
    evidence = data.get("evidence") or {}
    why = why or evidence.get("why") or evidence.get("said")  # of who carried it out without a plan
    reasons = why.get(request.id) if isinstance(why, Mapping) else why
    return Done(
        day=entry.time[:10],
        batch=data["batch"],
        way=WAY_NAMES[data["way"]],
        meaning=WAYS[data["way"]],
        why=_sentences(reasons),
        held=[str(name) for name in data.get("held") or []] if data.get("weights") else [],
        cost=_cost(data.get("cost") or {}),
        weights=_name(data.get("weights") or {}, names) if data.get("weights") else "unchanged",
    )


def _verified(entry: Entry, names: Sequence[tuple[dict[str, str], str]]) -> Verified:
    data = entry.data
    return Verified(
        day=entry.time[:10],
        number=entry.number,
        holds=bool(data["holds"]),
        why=_sentences(data.get("why")),
        notes=_sentences(data.get("notes")),
        figures=list(_figures(data.get("figures") or {})),
        weights=_name(data.get("weights") or {}, names),
    )


def _figures(figures: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Name, value and limit of figures as `MetricResult.to_dict` writes them, or of plain values."""
    for name, figure in figures.items():
        known = METRIC_DESCRIPTIONS.get(name, MetricDescription(name, label=name.replace("_", " "), format=".3f"))
        told = figure if isinstance(figure, Mapping) else {"value": figure}
        value, low, high = (_number(told.get(end), known) for end in ("value", "low", "high"))
        interval = f" [{low}, {high}]" if told.get("low") is not None and told.get("high") is not None else ""
        rows = f", n = {told['n']}" if told.get("n") is not None else ""
        yield redacted(
            (str(told.get("label") or known.title), f"{value}{interval}{rows}", str(told.get("limit") or ""))
        )


def _number(value: Any, known: MetricDescription) -> str:
    if value is None or isinstance(value, bool):
        return "not measured" if value is None else "yes" if value else "no"
    return known.write(value) if isinstance(value, int | float) else str(value)


def _sentences(words: Any) -> list[str]:
    """A text, a list of texts or nothing, as whole sentences."""
    texts = [words] if isinstance(words, str) else words or []
    return redacted([f"{text[0].upper()}{text[1:]}".rstrip(".") + "." for text in map(str, texts) if text])


def _cost(cost: Mapping[str, Any]) -> str:
    told = [f"{cost['steps']} steps"] if cost.get("steps") is not None else []
    return ", ".join([*told, *([f"{cost['seconds']:.0f} seconds"] if cost.get("seconds") is not None else [])])


def _name(weights: Mapping[str, str], names: Sequence[tuple[dict[str, str], str]]) -> str:
    known = [word for hashes, word in names if hashes == weights]
    return known[-1] if known else "weights that the ledger does not name"


def _happened(entry: Entry) -> str:
    data, event = entry.data, entry.event
    about = ", ".join(data.get("requests") or [])
    if event == OPENED:
        return f"The ledger was opened for a model in {_count(len(data['model']), 'weight file')}."
    if event == ADDED:
        return f"Request {data['request']} came in: {_count(data['rows'], 'row')}, received {data['received']}."
    if event == PLANNED:
        return f"Planned for {about}: {WAY_NAMES[data['way']]}."
    if event == STARTED:
        held = f"; held at their level: {', '.join(data['held'])}" if data.get("held") else ""
        return f"Batch {data['batch']} was started for {about}{held}."
    if event == DONE:
        return f"Batch {data['batch']} was done for {about}: {WAY_NAMES[data['way']]}."
    if event == VERIFIED:
        return f"Request {data['request']} was verified: it {'holds' if data['holds'] else 'does not hold'}."
    if event == REOPENED:
        return f"Request {data['request']} came back and was opened again."
    if event == ERASED:
        return f"The rows of request {data['request']} were erased: {' '.join(_sentences(data.get('why')))}"
    if event == ABANDONED:
        return f"Batch {data['batch']} for {about} was given up: {' '.join(_sentences(data.get('why')))}"
    if event == REPLACED:
        return "The model was replaced by another from outside."
    return f"Entries 1 to {data['entries']} were exported." if event == EXPORTED else f"{event}."


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")
