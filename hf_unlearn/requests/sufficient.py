"""Whether a way of carrying out a request is sufficient, and why or why not, in plain sentences; no model is run."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from .evidence import Evidence
from .state import CALIBRATED, CHECKPOINT, DROP_COHORT, NOTHING, REPLAY, LedgerState, Request

EXACT = (NOTHING, DROP_COHORT, REPLAY)  # what is done follows from the log alone
_COMPLETE = "That is exact as far as the log is complete."


@dataclass(frozen=True)
class Sufficient:
    """A way that will do.

    Attributes:
        why: sentences.
        cost: as a share of the training's steps; None where it is not known beforehand.
        details: what carrying it out needs, and what it rests on, as JSON takes it.
    """

    why: tuple[str, ...]
    cost: float | None
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """A request before it is carried out.

    Attributes:
        request: which one.
        state: of the ledger.
        evidence: of the training.
        max_replay: the largest share of the training that may be replayed.
        steps: of a calibrated run; None where they are not known.
    """

    request: Request
    state: LedgerState
    evidence: Evidence
    max_replay: float = 1.0
    steps: int | None = None

    @cached_property
    def trained(self) -> list[str]:
        """Digests of the rows that the log names."""
        return self.evidence.trained(self.request.digests)

    @cached_property
    def earlier(self) -> list[Request]:
        """Other requests whose rows were taken out of weights."""
        return earlier_requests(self.state, (self.request.id,))

    @cached_property
    def on_top(self) -> list[Request]:
        """Requests, this one too where it came back, for which the weights were moved on: no exact start."""
        return [one for one in self.state.requests.values() if one.way not in (None, *EXACT)]

    @cached_property
    def log_refusal(self) -> str | None:
        """Why the log does not speak of this request; None where it does."""
        evidence, state = self.evidence, self.state
        if evidence.log_sha256 is None:
            return "There is no log of the training that would tell which rows it was done with."
        if evidence.weights is not None and dict(evidence.weights) != state.base:
            return "The log is that of other weights than the ledger's model has."
        if evidence.weights is None and state.base != state.opened.get("model"):
            return "The model was replaced after the ledger was opened, and the log does not say which one it is of."
        if self.request.reopened and self.request.way in EXACT:
            return "The request was carried out by the log before and came back, so the log cannot be complete."
        return None


def earlier_requests(state: LedgerState, but: tuple[str, ...] = ()) -> list[Request]:
    """Requests whose rows were taken out of weights and are to stay out, in order, but for some by their ids."""
    return [one for one in state.requests.values() if one.way not in (None, NOTHING) and one.id not in but]


def judge(way: str, case: Case) -> Sufficient | str:
    """Whether a way is sufficient for a request; a sentence that says why not where it is not."""
    if way in EXACT and case.log_refusal is not None:
        return case.log_refusal
    if way in (DROP_COHORT, REPLAY) and not case.trained:
        return "The log names none of its rows, so there is nothing in the training to undo."
    return _RULES[way](case)


def _nothing(case: Case) -> Sufficient | str:
    evidence, rows = case.evidence, case.request.rows
    if case.trained:
        return f"The log names {len(case.trained)} of its {_rows(rows)}: they were trained on."
    why = [
        f"The training's log names {_rows(evidence.rows_logged)} and none of the {rows} of this request.",
        "It knows rows by their exact words, so the same told in other words is another row.",
        _COMPLETE,
    ]
    if case.earlier:
        why.append("What earlier batches trained on, the rows that were kept, is not in this log.")
    return Sufficient(tuple(why), 0.0, _log(evidence))


def _drop_cohort(case: Case) -> Sufficient | str:
    evidence = case.evidence
    shared = [digest for digest in case.trained if digest in evidence.first_steps]
    if shared:
        return f"{len(shared)} of its rows were trained into weights that all cohorts share, not into an adapter."
    dropped = set(case.trained)
    if case.on_top:
        before = evidence.trained([digest for one in case.on_top for digest in one.digests])
        if any(digest in evidence.first_steps for digest in before):
            return (
                f"Request {_names(case.on_top)} changed the weights that all cohorts share after their adapters were "
                "trained: dropping one now would not give what a training without it gives."
            )
        dropped |= set(before)
    asked = {digest for request in case.state.requests.values() for digest in request.digests}
    cohorts = {}
    for name in sorted({evidence.cohorts[digest] for digest in dropped}):
        gone = sum(cohort == name and digest in asked for digest, cohort in evidence.cohorts.items())
        cohorts[name] = max(evidence.rows_of(name) - gone, 0)
    others = sum(cohorts.values())
    why = [
        f"All of its {_rows(len(case.trained))} that the log names are in the adapter of cohort {', '.join(cohorts)}: "
        f"without that adapter the weights never saw them.",
        _COMPLETE,
        f"The adapter also holds {_rows(others)} that nobody asked to delete; they are lost with it unless they are "
        "trained again."
        if others
        else "The adapter holds no row that nobody asked to delete.",
    ]
    if case.on_top:
        why.append(
            f"It starts from the adapters of the training: what was done for {_names(case.on_top)} on top of them is "
            "lost, and the adapters with those rows are dropped as well."
        )
    cost = others / evidence.rows_logged if evidence.rows_logged else None
    return Sufficient(tuple(why), cost, {**_log(evidence), "cohorts": cohorts})


def _replay(case: Case) -> Sufficient | str:
    evidence = case.evidence
    in_adapters = sum(digest in evidence.cohorts for digest in case.trained)
    if in_adapters:
        return f"The adapter of a cohort holds {_rows(in_adapters)} of it, and a replay trains no adapter."
    asked = [digest for one in (case.request, *case.earlier) for digest in one.digests]
    first = min(evidence.first_steps[digest] for digest in asked if digest in evidence.first_steps)
    kept = [step for step in evidence.checkpoint_steps if step < first]
    if not kept:
        return f"No checkpoint of the training from before step {first}, the first with a row to leave out, was kept."
    start, total = max(kept), evidence.total_steps
    cost = (total - start) / total
    if cost > case.max_replay:
        limit = f"more than the {case.max_replay:.0%} allowed"
        return f"A replay from step {start} takes {cost:.0%} of the training, {limit}."
    why = [
        f"Its rows were first trained on in step {min(evidence.first_steps[digest] for digest in case.trained)} of "
        f"{total}, and the checkpoint of step {start} was kept: the {total - start} steps after it are done again "
        f"without them, {cost:.0%} of the training.",
        _COMPLETE,
    ]
    if len(case.state.requests) > 1:
        why.append("The rows of all other requests so far are left out of the replay as well.")
    if evidence.cohorts or evidence.cohort_rows:
        why.append("The adapters of cohorts were trained on other weights than the replay gives: train them again.")
    if case.on_top:
        why.append(
            f"It starts from a checkpoint of the training and not from the present weights: what was done to them for "
            f"{_names(case.on_top)} is lost, and not needed, since the replay never sees those rows."
        )
    return Sufficient(tuple(why), cost, {**_log(evidence), "step": start, "steps": total - start, "of": total})


def _checkpoint(case: Case) -> Sufficient | str:
    if case.evidence.checkpoint is None:
        return "No model from before its rows is known."
    if case.request.reopened and case.request.way == CHECKPOINT:
        return "It was carried out from a model before its rows and came back."
    logged = case.log_refusal is None
    why = ["A model from before its rows is known, and its weights hold nothing of them."]
    if logged:
        why.append("The log names the rows that came after it; those that are kept are trained again on top (rewind).")
    else:
        why.append(
            "Which rows came after it is not logged, so the present weights are moved by what the rows changed, "
            "measured from that model (msa)."
        )
    why.append("Whether it holds is measured; it is not exact.")
    if case.earlier:
        why.append(f"The rows of {_names(case.earlier)} are left out, and held at their level.")
    return Sufficient(tuple(why), None, {"edit": "rewind" if logged else "msa"})


def _calibrated(case: Case) -> Sufficient:
    why = ["Whether it holds is measured; it is not exact."]
    if case.earlier:
        why.append(f"The rows of {_names(case.earlier)} are held at their level in the same run.")
    total = case.evidence.total_steps
    return Sufficient(tuple(why), case.steps / total if case.steps is not None and total else None)


_RULES: dict[str, Callable[[Case], Sufficient | str]] = {
    NOTHING: _nothing,
    DROP_COHORT: _drop_cohort,
    REPLAY: _replay,
    CHECKPOINT: _checkpoint,
    CALIBRATED: _calibrated,
}


def _log(evidence: Evidence) -> dict[str, Any]:
    return {"log_sha256": evidence.log_sha256, "rows_logged": evidence.rows_logged}


def _names(requests: list[Request]) -> str:
    return ", ".join(request.id for request in requests)


def _rows(count: int) -> str:
    return f"{count} row" if count == 1 else f"{count} rows"
