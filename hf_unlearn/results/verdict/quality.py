"""What the forget quality says: whether a test of truth ratios tells the model from the oracle."""

from collections.abc import Mapping
from dataclasses import dataclass

from ..evaluation_result import EvaluationResult
from .figures import Metric, metric_of

_METRIC = "forget_quality"
_SAME_FROM = 0.05  # p of the KS test, above which the model is not told from the oracle


@dataclass(frozen=True)
class ForgetQuality:
    """The p-value of TOFU's KS test between the model after unlearning and the oracle.

    Attributes:
        metric: the p-value.
        told: whether it tells the two apart.
        words: the same as a clause.
    """

    metric: Metric
    told: bool
    words: str


def forget_quality(results: Mapping[str, EvaluationResult]) -> ForgetQuality | None:
    """Of results that stand side by side; None where the suite has no such test, or it gave no number."""
    if "after" not in results:
        return None
    metric = metric_of(_METRIC, results)
    if "after" not in metric.figures:
        return None
    told = metric.figures["after"].value <= _SAME_FROM
    tells = "tells it from the oracle" if told else "does not tell it from the oracle"
    return ForgetQuality(metric, told, f"the KS test {tells} (forget quality p = {metric.words['after']})")
