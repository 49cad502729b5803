"""What the runs of a sweep are compared by: forgetting, utility, traceability, each a figure that is to be small."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ...errors import require_choice, value_error
from ...evaluation import EvaluationResult

FORGETTING, UTILITY, TRACEABILITY = NAMES = ("forgetting", "utility", "traceability")
# Points of utility that a recipe may cost at most; a loss of so much weighs as much as nothing forgotten.
UTILITY_TOLERANCE = 0.05
_CHANCE = 0.5  # AUC of a membership attack that finds nothing


@dataclass(frozen=True)
class Objective:
    """One figure of a run that is to be small.

    Attributes:
        name: of `NAMES`.
        metric: of the suite.
        target: what the metric ought to be: the oracle's, the value of before, chance, or 0.
        scale: what counts as 1: the figure of the model before unlearning, or the tolerance of the utility.
        words: what the figure is, in words.
    """

    name: str
    metric: str
    target: float
    scale: float
    words: str

    def figure(self, result: EvaluationResult) -> float:
        """The figure of a run; NaN where its metric is missing. Of the utility a gain is below 0."""
        metric = result.metrics.get(self.metric)
        if metric is None:
            return math.nan
        return self.target - metric.value if self.name == UTILITY else abs(metric.value - self.target)

    def scaled(self, figure: float) -> float:
        """A figure in units of the scale; a gain of utility is no merit, as nothing can be kept better than whole."""
        return max(0.0, figure) / self.scale


def find_objectives(
    before: EvaluationResult, oracle: EvaluationResult | None, *, levels: bool, asked: Sequence[str] | None = None
) -> list[Objective]:
    """The objectives that a suite has figures for.

    Args:
        before: result on the model before unlearning, beside the oracle's where there is one.
        oracle: result on the model retrained without the forget rows.
        levels: whether the recipe leads rows to the levels of unseen ones.
        asked: names of objectives; None for all that there are.

    Raises:
        ValueError: a suite without a pair of metrics, or an objective that it has no figure for.
    """
    if before.pair is None:
        raise value_error("the suite", "one with a metric of forgetting and one of utility", before.suite)
    found = [_forgetting(before, oracle), _utility(before), _traceability(before, oracle, levels)]
    there = {objective.name: objective for objective in found if objective is not None}
    for name in asked or ():
        require_choice("--objectives", name, NAMES)
        if name not in there:
            raise value_error(
                "--objectives", "objectives that the suite has figures for", name, "traceability needs holdout rows"
            )
    return [there[name] for name in NAMES if name in (asked or there) and name in there]


def _forgetting(before: EvaluationResult, oracle: EvaluationResult | None) -> Objective:
    assert before.pair is not None
    metric = before.pair[0]
    target = 0.0 if oracle is None else oracle[metric].value
    words = (
        f"{metric} of the forget rows" if oracle is None else f"distance of {metric} to the oracle's ({target:.3f})"
    )
    return Objective(FORGETTING, metric, target, abs(before[metric].value - target) or 1.0, words)


def _utility(before: EvaluationResult) -> Objective:
    assert before.pair is not None
    metric = before.pair[1]
    target = before[metric].value
    return Objective(
        UTILITY, metric, target, UTILITY_TOLERANCE, f"drop of {metric} below that of before ({target:.3f})"
    )


def _traceability(before: EvaluationResult, oracle: EvaluationResult | None, levels: bool) -> Objective | None:
    """How well forget rows can be told from unseen ones, or their losses from the oracle's; None without such rows."""
    distance = "oracle_level_ks" if "oracle_level_ks" in before.metrics else "level_ks"
    if levels and distance in before.metrics:
        whose = "the oracle's" if distance == "oracle_level_ks" else "unseen rows'"
        words = f"distance of the forget rows' losses to {whose} ({distance})"
        return Objective(TRACEABILITY, distance, 0.0, abs(before[distance].value) or 1.0, words)
    if "loss_auc" not in before.metrics:
        return None
    known = oracle is not None and "loss_auc" in oracle.metrics and math.isfinite(oracle["loss_auc"].value)
    target = oracle["loss_auc"].value if known and oracle is not None else _CHANCE
    words = f"distance of the membership AUC to {'the oracle' if known else 'chance'}'s ({target:.3f})"
    return Objective(TRACEABILITY, "loss_auc", target, abs(before["loss_auc"].value - target) or 1.0, words)
