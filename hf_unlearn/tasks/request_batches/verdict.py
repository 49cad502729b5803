"""Whether a deletion holds: figures of its rows on the present weights against the limits of a policy."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ...attacks.subjects import FEWEST
from ...metrics import METRIC_DESCRIPTIONS, MetricResult
from ...results.attack_report import AttackFinding, AttackReport
from ...results.attack_words import is_finite, is_removal
from ...results.gate.policy import WAYS, Limits, Policy

# Figures of the suite that an entry keeps, in the order in which they are shown.
KEPT = (
    "forget_accuracy",
    "forget_nll",
    "holdout_nll",
    "level_ks",
    "level_ks_chance",
    "forget_extraction_strength",
    "forget_exact_memorization",
    "loss_auc",
    "min_k_auc",
    "retain_nll",
    "retain_accuracy",
)
MEMBERSHIP = ("loss_auc", "min_k_auc")
_WAY = "merged"  # whoever gets the whole weights: the strictest way in which the model before is not at hand
_GUESS = 0.5


@dataclass(frozen=True)
class Verdict:
    """On one request.

    Attributes:
        holds: whether no figure shows that the rows are known more than rows never seen.
        why: what stands against it, a sentence each; empty where it holds.
        notes: what the figures leave open, a sentence each.
    """

    holds: bool
    why: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def verdict_of(
    metrics: Mapping[str, MetricResult],
    report: AttackReport | None,
    policy: Policy,
    *,
    rows: int | None = None,
    exact: bool = False,
) -> Verdict:
    """The verdict by the limits of a policy.

    A limit is passed where the figure is above it and its interval leaves out what no knowledge gives: an excess of 0,
    an AUC of one half. A figure whose interval only reaches above its limit is a note: few rows cannot show little.

    Args:
        metrics: of the suite `custom` on the request's rows.
        report: of the attacks; None where none was tried.
        policy: whose limits for whole weights count, or those of its first way.
        rows: of the request; None where they are enough. With fewer than attacks need, no AUC is judged.
        exact: whether the weights are those of a training without the rows: then rows that are less likely than
            unseen ones are merely unlike them, and only an AUC above one half counts.
    """
    limits = policy.ways.get(_WAY) or next(iter(policy.ways.values()))
    why = _recited(metrics, limits)
    notes: list[str] = []
    if rows is not None and rows < FEWEST:
        notes.append(f"Membership is not judged: {rows} rows are too few, {FEWEST} are needed.")
    else:
        for name in MEMBERSHIP:
            _judge_auc(name, metrics.get(name), limits, why, notes, exact)
    for finding in [] if report is None else report.findings:
        if _counts(finding):
            _judge_attack(finding, limits, why, notes)
    if report is None:
        notes.append("No attack was tried.")
    elif report.reported_rows < limits.rows:
        notes.append(
            f"The attacks' figures are of {report.reported_rows} rows; the policy asks for {limits.rows}: a small "
            "leak would not be seen."
        )
    return Verdict(not why, why, notes)


def figures_of(metrics: Mapping[str, MetricResult], report: AttackReport | None) -> dict[str, Any]:
    """The figures of an entry, as JSON takes them: {value, low, high, n} by name."""
    figures = {name: metrics[name].to_dict() for name in KEPT if name in metrics}
    for finding in [] if report is None else report.findings:
        if finding.excess is not None and _counts(finding):
            excess = finding.excess
            figures[f"attack_{finding.name}"] = {
                **MetricResult(excess.value, report.reported_rows if report else 0, excess.low, excess.high).to_dict(),
                "label": f"excess of the attack {finding.name}",
            }
    return figures


def _counts(finding: AttackFinding) -> bool:
    """Whether an attack is one on whole weights: an adapter is merged before they are given away."""
    return finding.threat in WAYS[_WAY].exposes and not is_removal(finding)


def _recited(metrics: Mapping[str, MetricResult], limits: Limits) -> list[str]:
    """Rows whose answer the model gives when it is asked: more than the policy lets attacks recover."""
    figure = metrics.get("forget_accuracy")
    if figure is None or not figure.value > limits.recovered:
        return []
    return [f"the model gives the answers of {figure.value:.0%} of the rows, more than {limits.recovered:.0%}"]


def _judge_auc(
    name: str, figure: MetricResult | None, limits: Limits, why: list[str], notes: list[str], exact: bool
) -> None:
    if figure is None or limits.membership is None or figure.low is None or figure.high is None:
        return
    title = METRIC_DESCRIPTIONS[name].title
    if not all(math.isfinite(value) for value in (figure.value, figure.low, figure.high)):
        notes.append(f"The {title} has no figure.")
        return
    said = f"the {title} is {figure.value:.2f} [{figure.low:.2f}, {figure.high:.2f}]"
    off, most = figure.value - _GUESS, figure.high - _GUESS
    apart = figure.low > _GUESS
    if not exact:
        off, most, apart = abs(off), max(most, _GUESS - figure.low), apart or figure.high < _GUESS
    if apart and off > limits.membership:
        why.append(f"{said}: it tells rows from rows never seen, more than {limits.membership:g} off one half")
    elif most > limits.membership:
        notes.append(f"T{said[1:]}: more than {limits.membership:g} off one half cannot be excluded.")


def _judge_attack(finding: AttackFinding, limits: Limits, why: list[str], notes: list[str]) -> None:
    limit = limits.excess if finding.content else limits.membership
    if limit is None:
        return
    if finding.excess is None or not is_finite(finding.excess):
        notes.append(f"The attack {finding.name} has no excess, as it has no control or no figure.")
        return
    excess = finding.excess
    said = f"excess of {excess.value:.3f} [{excess.low:.3f}, {excess.high:.3f}]"
    if excess.value > limit and excess.low > 0:
        why.append(f"the attack {finding.name} gets more than from rows never seen: {said}, more than {limit:g}")
    elif excess.high > limit:
        notes.append(f"The attack {finding.name} has an {said}: more than {limit:g} cannot be excluded.")
