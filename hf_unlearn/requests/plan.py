"""The cheapest sufficient way of carrying out each open request, and why; requests of one way make a batch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..errors import input_error, require_choice, require_range
from .evidence import Evidence
from .state import CALIBRATED, CHECKPOINT, DROP_COHORT, NOTHING, OPEN, REPLAY, WAYS, LedgerState
from .sufficient import Case, Sufficient, earlier_requests, judge

__all__ = ["Batch", "Evidence", "Plan", "grouped", "held_requests", "plan", "plan_words"]


@dataclass(frozen=True)
class Plan:
    """How a request is to be carried out.

    Attributes:
        request: its id.
        way: of `WAYS`.
        why: sentences: what makes the way sufficient, then why no cheaper one is.
        cost: as a share of the training's steps; None where it is not known beforehand.
        details: what carrying it out needs and what it rests on, as JSON takes it; no path.
    """

    request: str
    way: str
    why: tuple[str, ...]
    cost: float | None
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Batch:
    """Requests that are carried out together.

    Attributes:
        way: of all of them.
        requests: their ids.
        plans: of each of them.
        cost: of the batch, as a share of the training's steps; None where it is not known beforehand.
        details: of the batch.
    """

    way: str
    requests: list[str]
    plans: list[Plan]
    cost: float | None
    details: dict[str, Any]

    def entry(self) -> dict[str, Any]:
        """Data of the entry `planned`."""
        why = {plan.request: list(plan.why) for plan in self.plans}
        evidence = {**self.details, "cost": self.cost}
        return {"requests": self.requests, "way": self.way, "why": why, "evidence": evidence}


def plan(
    state: LedgerState,
    request_ids: Sequence[str],
    evidence: Evidence,
    ways: Mapping[str, str] | None = None,
    max_replay: float = 1.0,
    steps: int | None = None,
) -> list[Plan]:
    """The cheapest sufficient way for each of these requests, in the order of `WAYS`: exact ways first.

    Args:
        state: of the ledger.
        request_ids: of open requests.
        evidence: what is known of the training.
        ways: the way that was asked for, by request; taken where it is sufficient.
        max_replay: the largest share of the training that may be replayed.
        steps: of a calibrated run, for its cost.

    Raises:
        ValueError: an id that is not that of an open request, an unknown way, or one that is not sufficient.
    """
    require_range("max_replay", max_replay, at_least=0, at_most=1)
    for name in (*request_ids, *(ways or {})):
        require_choice("request", name, [request.id for request in state.with_status(OPEN)])
    cases = [Case(state.requests[name], state, evidence, max_replay, steps) for name in dict.fromkeys(request_ids)]
    return [_planned(case, (ways or {}).get(case.request.id)) for case in cases]


def grouped(plans: Sequence[Plan], together: bool = False) -> list[Batch]:
    """The batches of these plans, in the order in which they are to be carried out: that of `WAYS`.

    Requests of one way are one batch. Where there is a calibrated one, those from a checkpoint go along in it, since
    they too are measured and not exact.

    Args:
        plans: of `plan`.
        together: let those of exact ways go along in it too; they are then no longer exact.
    """
    joins = {CHECKPOINT, *((DROP_COHORT, REPLAY) if together else ())}
    ways = {one.way for one in plans}
    if CALIBRATED in ways or (together and len(ways - {NOTHING}) > 1):
        plans = [_along(one) if one.way in joins else one for one in plans]
    batches = [(way, [one for one in plans if one.way == way]) for way in WAYS]
    return [_batch(way, members) for way, members in batches if members]


def held_requests(state: LedgerState, requests: Sequence[str]) -> list[str]:
    """Ids of the earlier requests whose rows a batch has to hold at their level, or to leave out."""
    return [request.id for request in earlier_requests(state, tuple(requests)) if request.rows_kept]


def plan_words(batches: Sequence[Batch]) -> str:
    """The batches as text for people."""
    paragraphs = []
    for batch in batches:
        cost = "not known beforehand" if batch.cost is None else f"{batch.cost:.0%} of the training"
        lines = [f"{', '.join(batch.requests)}: {batch.way}, {WAYS[batch.way]}. Cost: {cost}."]
        for one in batch.plans:
            lines += [f"  {one.request}:", *(f"    {sentence}" for sentence in one.why)]
        paragraphs.append("\n".join(lines))
    return "\n\n".join(paragraphs) or "Nothing is open."


def _planned(case: Case, asked: str | None) -> Plan:
    if asked is not None:
        require_choice("way", asked, WAYS)
    refused: list[str] = []
    for way in WAYS if asked is None else (asked,):
        verdict = judge(way, case)
        if isinstance(verdict, Sufficient):
            was_asked = ("The way was asked for.",) if asked is not None else ()
            why = (*was_asked, *verdict.why, *dict.fromkeys(refused))
            return Plan(case.request.id, way, why, verdict.cost, verdict.details)
        refused.append(verdict)
    sufficient = [way for way in WAYS if isinstance(judge(way, case), Sufficient)]
    raise input_error(
        expected=f"a way that is sufficient for request {case.request.id}: {', '.join(sufficient)}",
        got=f"{asked}, which is not",
        why=refused[0].rstrip("."),
        fix="leave --way out for the cheapest of these, or name one of them",
    )


def _along(one: Plan) -> Plan:
    words = f"It goes along in a calibrated batch, which saves a run of its own; by itself: {WAYS[one.way]}."
    measured = "Whether it holds is measured; it is not exact."
    return replace(one, way=CALIBRATED, why=(words, measured), cost=None, details={})


def _batch(way: str, plans: list[Plan]) -> Batch:
    costs = [one.cost for one in plans if one.cost is not None]
    cost, details = (max(costs) if costs else None), dict(plans[0].details)
    if way == DROP_COHORT:
        details["cohorts"] = {name: rows for one in plans for name, rows in one.details["cohorts"].items()}
        logged = details["rows_logged"]
        cost = sum(details["cohorts"].values()) / logged if logged else None
    elif way == REPLAY:  # from the earliest checkpoint that one of them needs
        details = dict(max(plans, key=lambda one: one.details["steps"]).details)
    return Batch(way, [one.request for one in plans], plans, cost, details)
