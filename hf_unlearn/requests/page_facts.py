"""What the page of an export says of a ledger, in words: from its entries alone, without rows, digests or paths."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

from ..results.redaction import redacted
from .chain import Entry
from .state import (
    ADDED,
    CARRIED_OUT,
    DONE,
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
    why: str
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
    reopened: list[tuple[str, str]]


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
            (entry.time[:10], redacted(str(entry.data["why"]))) for entry in request.history if entry.event == REOPENED
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
    reasons = why.get(request.id, []) if isinstance(why, Mapping) else [] if why is None else why
    return Done(
        day=entry.time[:10],
        batch=data["batch"],
        way=WAY_NAMES[data["way"]],
        meaning=WAYS[data["way"]],
        why=redacted([reasons] if isinstance(reasons, str) else [str(reason) for reason in reasons]),
        held=[str(name) for name in data.get("held") or []] if data.get("weights") else [],
        cost=redacted(_cost(data.get("cost"))),
        weights=_name(data.get("weights") or {}, names) if data.get("weights") else "unchanged",
    )


def _verified(entry: Entry, names: Sequence[tuple[dict[str, str], str]]) -> Verified:
    data = entry.data
    why = data.get("why") or ""
    return Verified(
        day=entry.time[:10],
        number=entry.number,
        holds=bool(data["holds"]),
        why=redacted(why if isinstance(why, str) else " ".join(str(sentence) for sentence in why)),
        figures=list(_figures(data.get("figures") or {})),
        weights=_name(data.get("weights") or {}, names),
    )


def _figures(figures: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Figures as `MetricResult.to_dict` writes them, or plain values; a mapping of figures is gone through."""
    for name, figure in figures.items():
        label = str(name).replace("_", " ")
        if isinstance(figure, Mapping) and "value" not in figure:
            yield from ((f"{label}: {inner}", value, limit) for inner, value, limit in _figures(figure))
        elif isinstance(figure, Mapping):
            interval = ""
            if figure.get("low") is not None and figure.get("high") is not None:
                interval = f" [{_number(figure['low'])}, {_number(figure['high'])}]"
            rows = f", n = {figure['n']}" if figure.get("n") is not None else ""
            value = f"{_number(figure['value'])}{interval}{rows}"
            yield str(figure.get("label") or label), redacted(value), redacted(str(figure.get("limit") or ""))
        else:
            yield label, redacted(_number(figure)), ""


def _number(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.3g}" if isinstance(value, float) else "not measured" if value is None else str(value)


def _cost(cost: Any) -> str:
    if isinstance(cost, Mapping):
        return ", ".join(f"{str(name).replace('_', ' ')} {_number(value)}" for name, value in cost.items())
    return "" if cost is None else f"{cost:.0%} of the training" if isinstance(cost, float) else str(cost)


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
    if event == REPLACED:
        return "The model was replaced by another from outside."
    return f"Entries 1 to {data['entries']} were exported." if event == EXPORTED else f"{event}."


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")
