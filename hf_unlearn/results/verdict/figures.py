"""One metric of several models, with its label and its intervals."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ...metrics import MetricDescription, MetricResult
from ..evaluation_result import EvaluationResult
from ..table import description_of, table_rows

MODELS = ("before", "after", "oracle")


@dataclass(frozen=True)
class Metric:
    """A metric of the models that have a finite figure for it, and the same as words."""

    described: MetricDescription
    figures: dict[str, MetricResult]
    words: dict[str, str]

    @property
    def label(self) -> str:
        """What a table calls it."""
        return self.described.title

    @property
    def change(self) -> str:
        """From before to after."""
        before, after, label = self.figures.get("before"), self.figures["after"], self.label
        if before is None:
            return f"{label} at {self.words['after']}"
        way = "stayed at" if after.value == before.value else "fell" if after.value < before.value else "rose"
        if way == "stayed at":
            return f"{label} {way} {self.words['after']}"
        return f"{label} {way} from {self.words['before']} to {self.words['after']}"


def side_by_side(evaluations: Mapping[str, EvaluationResult]) -> dict[str, EvaluationResult]:
    """The results that stand in one table: before, after, oracle and others, all of the suite that "after" has."""
    order = [name for name in MODELS if name in evaluations] + [name for name in evaluations if name not in MODELS]
    if not order:
        return {}
    suite = evaluations["after" if "after" in evaluations else order[0]].suite
    return {name: evaluations[name] for name in order if evaluations[name].suite == suite}


def metric_of(name: str, results: Mapping[str, EvaluationResult]) -> Metric:
    """A metric of results that stand side by side."""
    given = {model: result.metrics.get(name) for model, result in results.items()}
    figures = {model: figure for model, figure in given.items() if figure is not None and math.isfinite(figure.value)}
    words = {}
    for row in table_rows(results, everything=True):
        if row.metric == name:
            cells = zip(results, row.values, row.cells, strict=True)
            words = {m: cell if m in figures and ends(figures[m]) else str(value) for m, value, cell in cells}
    return Metric(description_of(name, results.values()), figures, words)


def ends(result: MetricResult) -> tuple[float, float] | None:
    """The interval; None where there is none, or one that is not finite."""
    low, high = result.low, result.high
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return None
    return low, high


def overlap(one: MetricResult, other: MetricResult) -> bool | None:
    """Whether two intervals overlap; None where one of them is missing."""
    mine, others = ends(one), ends(other)
    return None if mine is None or others is None else mine[0] <= others[1] and others[0] <= mine[1]
