"""What the suite's pair of metrics says: what was forgotten, what was kept, and whether the model is broken."""

from collections.abc import Mapping

from ...metrics import METRIC_DESCRIPTIONS, MetricResult
from ..evaluation_result import EvaluationResult
from ..table import description_of
from .figures import Metric, metric_of, overlap

LOST_FROM = 0.05
LEFT_AT_MOST = 0.2  # of the value before, where no oracle says how far forgetting goes
BROKEN_FROM = 0.5


def forgotten(metric: Metric, named: str) -> tuple[bool | None, str]:
    """Whether as much was forgotten as should be, None where nothing tells; with a clause that has the figures.

    Args:
        metric: of what was forgotten, lower is more.
        named: the oracle, within a sentence.
    """
    label = metric.label
    before, after, oracle = (metric.figures.get(name) for name in ("before", "after", "oracle"))
    if after is None:
        return None, f"there is no figure for {label}"
    if oracle is None:
        return _alone(metric, before, after)
    ceiling = oracle.value if oracle.high is None else oracle.high
    level = f"the level of {named} ({metric.words['oracle']}"
    if before is not None and before.value <= ceiling:
        nothing = f"the model before was already at {level}), so that nothing was there to be forgotten"
        return None, f"{metric.change}, but {nothing}"
    level += f"{_intervals(overlap(after, oracle), ', ')})"
    if after.value > ceiling:
        return False, f"{metric.change}, above {level}"
    chance = ", but not clear of the interval before" if before is not None and overlap(before, after) else ""
    return True, f"{metric.change}, not above {level}{chance}"


def _intervals(they_overlap: bool | None, before: str = "") -> str:
    if they_overlap is None:
        return ""
    return f"{before}the intervals {'' if they_overlap else 'do not '}overlap"


def _alone(metric: Metric, before: MetricResult | None, after: MetricResult) -> tuple[bool | None, str]:
    alone = "there is no oracle to compare with"
    overlapping = None if before is None else overlap(before, after)
    if before is None or overlapping is None:
        return None, f"{metric.change}, and {alone}, nor an interval before unlearning"
    if overlapping or after.value >= before.value:
        return False, f"{metric.change}, not clear of the interval before ({alone})"
    if after.value > LEFT_AT_MOST * before.value:
        return False, f"{metric.change}, which leaves more than a fifth of the value before ({alone})"
    return True, f"{metric.change}, clear of the interval before and a fifth of its value or less ({alone})"


def kept(metric: Metric) -> tuple[bool | None, str]:
    """Whether the utility fell by less than 5 points or 5%, None without a figure; with a clause that has them."""
    label = metric.label
    before, after = metric.figures.get("before"), metric.figures.get("after")
    if after is None:
        return None, f"there is no figure for {label}"
    if before is None:
        return None, f"{metric.change}, with no figure before unlearning"
    words = _intervals(overlap(before, after))
    apart = f" ({words})" if words else ""
    return drop(metric, before.value, after.value) < LOST_FROM, f"{metric.change}{apart}"


def drop(metric: Metric, before: float, after: float) -> float:
    """By how much a utility fell: of a percentage in points, of other scores as a share of the value before."""
    lost = before - after
    if not metric.described.in_points:
        lost = lost / before if before > 0 else 0.0
    return round(lost, 9)  # 0.95 - 0.90 is 5 points, not a little less


def broken(results: Mapping[str, EvaluationResult]) -> Metric | None:
    """The metric by which half or more of the answers after unlearning are broken; None where none says so."""
    names = dict.fromkeys([*METRIC_DESCRIPTIONS.packaged, *results["after"].descriptions])
    for metric in (metric_of(name, results) for name in names if description_of(name, results.values()).damage):
        after = metric.figures.get("after")
        if after is not None and after.value >= BROKEN_FROM:
            return metric
    return None


def broken_words(metric: Metric) -> str:
    """How much is broken, and what follows for the figures of what was forgotten."""
    already = f" (before unlearning {metric.words['before']})" if "before" in metric.figures else ""
    return (
        f"{metric.words['after']} of its {metric.described.damage}{already}, so that what it no longer says shows "
        "damage, not forgetting"
    )
