"""The decision on each way of release: what the attackers that it lets in got, against the limits of a policy."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...errors import input_error, value_error
from ..attack_report import (
    ATTACKS_FILE,
    BEFORE,
    MODEL,
    THREATS,
    AttackFinding,
    AttackReport,
    load_attack_report,
    recovered_rows,
)
from ..attack_words import is_finite, is_removal
from ..record import RECORD_FILE, RunRecord, load_record
from ..redaction import redacted
from ..verdict import Answer, side_by_side, verdict
from .policy import WAYS, Limits, Policy

_ATTACK = "run hf-unlearn attack on the run's folder"


@dataclass(frozen=True)
class Decision:
    """On one way of release.

    Attributes:
        way: its name.
        exposes: the classes of attackers that it lets in.
        released: whether nothing stands against it.
        reasons: what does, the end of a sentence each.
        attacks: those that count for it.
        attack: whose excess may be largest, of those that get what rows say; None where none has a control.
        excess: the upper end of its interval.
        recovered: share of the rows that they recover together, or the most that it can be; None without any.
    """

    way: str
    exposes: list[str]
    released: bool
    reasons: list[str]
    attacks: list[str]
    attack: str | None
    excess: float | None
    recovered: float | None


@dataclass(frozen=True)
class Gate:
    """What a policy says of a run.

    Attributes:
        run: its name.
        policy: its name.
        released: whether every way that was asked about is released.
        ways: the decisions.
        rows: that the figures of the attacks are means over; 0 where it was not attacked.
        utility: share of the suite's utility metric that was kept; None where it is not known.
        weights: SHA-256 of the model that was attacked.
        notes: what who releases it must know, a sentence each.
        answers: of the run's verdict, which decide nothing here.
    """

    run: str
    policy: str
    released: bool
    ways: list[Decision]
    rows: int
    utility: float | None
    weights: str
    notes: list[str]
    answers: tuple[Answer, ...]


def gate(folder: str | os.PathLike[str], policy: Policy, ways: Sequence[str] | None = None) -> Gate:
    """Whether the run in a folder may be released, by its results.json and attacks.json.

    Args:
        folder: of the run.
        policy: its limits.
        ways: of release that are asked about; None for those of the policy that the run has: an adapter is released
            where there is one.

    Raises:
        ValueError: no run, a file that was edited, reports that contradict each other, or a way that is not the
            policy's or the run's.
    """
    record = load_record(folder)
    report, why = _report(Path(folder), record)
    utility = _utility(record)
    decisions = [
        _decision(way, policy.ways[way], report, why, utility)
        for way in _asked(ways, policy, record.removable_adapter)
    ]
    return Gate(
        run=record.name,
        policy=policy.name,
        released=all(decision.released for decision in decisions),
        ways=decisions,
        rows=report.reported_rows,
        utility=utility,
        weights=report.weights,
        notes=_notes(record, report, [decision.way for decision in decisions]),
        answers=verdict(record).answers,
    )


def _report(folder: Path, record: RunRecord) -> tuple[AttackReport, str]:
    """The report of the run, with rows where attacks.json has them, and why there is none."""
    file = (folder if folder.is_dir() else folder.parent) / ATTACKS_FILE
    kept = record.attack_report
    if kept is None or not kept.findings:
        stale = f" ({ATTACKS_FILE} is of another state of it)" if kept is None and file.is_file() else ""
        return AttackReport(), f"the model was not attacked{stale}: {_ATTACK}"
    if not file.is_file():
        return kept, ""
    full = load_attack_report(file)
    if repr(redacted(full.without_rows())) != repr(kept):  # as text, in which a NaN equals a NaN
        raise input_error(
            expected=f"one report of attacks in {ATTACKS_FILE} and {RECORD_FILE}",
            got="two that differ",
            why="one of them was edited, or is of another state of the model",
            fix=_ATTACK,
        )
    return full, ""


def _asked(ways: Sequence[str] | None, policy: Policy, adapter: bool) -> list[str]:
    own = [way for way in policy.ways if way != "adapter" or adapter]
    for way in ways or ():
        if way not in policy.ways:
            raise value_error("--ways", f"a way that the policy {policy.name} decides on", way)
        if way not in own:
            raise value_error("--ways", "a way that the run can be released in", way, "it has no adapter to release")
    asked = list(dict.fromkeys(ways or own))
    if not asked:
        raise value_error("--policy", "a policy with a way that the run can be released in", policy.name)
    return asked


def _decision(way: str, limits: Limits, report: AttackReport, why: str, utility: float | None) -> Decision:
    exposes = WAYS[way].exposes
    # Where no adapter is released there is none to take off.
    counted = [f for f in report.findings if f.threat in exposes and (way == "adapter" or not is_removal(f))]
    content = [finding for finding in counted if finding.content]
    known = [(f.excess.high, f.name) for f in content if f.excess is not None and is_finite(f.excess)]
    highest, attack = max(known, default=(None, None))
    recovered = _recovered(counted, report) if counted else None
    reasons = [why] if why else _untried(way, limits, counted, report)
    reasons += _above(limits, counted, recovered)
    reasons += _too_little(limits, report, utility, attacked=not why)
    return Decision(
        way=way,
        exposes=list(exposes),
        released=not reasons,
        reasons=reasons,
        attacks=[finding.name for finding in counted],
        attack=attack,
        excess=highest,
        recovered=recovered,
    )


def _untried(way: str, limits: Limits, counted: Sequence[AttackFinding], report: AttackReport) -> list[str]:
    """What must have been tried and was not."""
    exposes, tried = WAYS[way].exposes, {finding.name for finding in counted}
    attacked = {finding.threat for finding in counted}
    reasons = [
        f"no attack of the class {threat} was tried: {_ATTACK}"
        for threat in limits.classes
        if threat in exposes and threat not in attacked
    ]
    needed = [name for threat in exposes for name in limits.attacks.get(threat, ())]
    for name in dict.fromkeys([*needed, *WAYS[way].attacks]):
        if name not in tried:
            reason = f", as {report.skipped[name]}" if name in report.skipped else f": {_ATTACK}"
            reasons.append(f"{name} was not tried{reason}")
    return reasons


def _above(limits: Limits, counted: Sequence[AttackFinding], recovered: float | None) -> list[str]:
    """What got more than is allowed, or may have, as far as its interval reaches."""
    reasons = []
    for finding in counted:
        limit = limits.excess if finding.content else limits.membership
        if limit is None:
            continue
        if finding.excess is None or not is_finite(finding.excess):
            reasons.append(f"{finding.name}: its excess is not known, as it has no control or no figure")
        elif finding.excess.high > limit:
            reasons.append(f"{finding.name}: its excess may be {finding.excess.high:.3f}, more than {limit:g}")
    if recovered is not None and not recovered <= limits.recovered:
        reasons.append(f"attacks recover {recovered:.1%} of the rows, more than {limits.recovered:.1%}")
    return reasons


def _too_little(limits: Limits, report: AttackReport, utility: float | None, *, attacked: bool) -> list[str]:
    reasons = []
    if attacked and report.reported_rows < limits.rows:
        reasons.append(f"the figures are of {report.reported_rows} rows, fewer than {limits.rows}")
    if limits.utility is not None and utility is None:
        reasons.append("how much utility was kept is not known: run hf-unlearn evaluate before and after unlearning")
    elif limits.utility is not None and utility is not None and not utility >= limits.utility:
        reasons.append(f"{utility:.1%} of the utility was kept, less than {limits.utility:.1%}")
    return reasons


def _recovered(counted: Sequence[AttackFinding], report: AttackReport) -> float:
    """Share of the rows that any of some attacks recovers, or the most that it can be where rows are not known."""
    of_class = max((finding.threat for finding in counted), key=THREATS.index)
    weaker = THREATS[: THREATS.index(of_class) + 1]
    told = report.worst.get(of_class)
    content = [finding for finding in counted if finding.content]
    if told is not None and len(counted) == sum(finding.threat in weaker for finding in report.findings):
        return told.recovered
    flags = [_recovered_rows(finding) for finding in content]
    known = [rows for rows in flags if rows is not None]
    if known and len(known) == len(content) and len({len(rows) for rows in known}) == 1:
        return float(np.any(known, axis=0).mean())
    most = sum(finding.recovered for finding in content)
    return min(1.0, most if told is None else min(most, told.recovered))


def _recovered_rows(finding: AttackFinding) -> NDArray[np.bool_] | None:
    """[R] flags of the rows that an attack recovers; None where they are not those that the report counted."""
    rows = {name: leak.rows for name, leak in finding.subjects.items() if leak.rows}
    if MODEL not in rows or (BEFORE in rows and len(rows[BEFORE]) != len(rows[MODEL])):
        return None
    flags = recovered_rows(rows)
    return flags if np.isclose(flags.mean(), finding.recovered, atol=1e-9) else None


def _utility(record: RunRecord) -> float | None:
    """Share of the utility metric's value before unlearning that is left; None where one of them is missing."""
    results = side_by_side(record.evaluations)
    if "before" not in results or "after" not in results or results["after"].pair is None:
        return None
    values = [results[name].metrics.get(results["after"].pair[1]) for name in ("before", "after")]
    before, after = (float("nan") if value is None else value.value for value in values)
    share = after / before if before > 0 else float("nan")
    return share if np.isfinite(share) else None


def _notes(record: RunRecord, report: AttackReport, ways: Sequence[str]) -> list[str]:
    notes = list(report.warnings)
    if "quantized" in ways and report.findings:
        notes.append("Other attacks were tried on the weights as they are, not on those in fewer bits.")
    whole = [way for way in ways if "weights" in WAYS[way].exposes and way != "adapter"]
    if whole and record.model.origin == "hub" and not record.model.fitted_from:
        notes.append(
            "The model before unlearning is on the Hub: who gets the weights has both, and the attacks of "
            f"weights_and_before, which do not count for {', '.join(whole)}."
        )
    return notes
