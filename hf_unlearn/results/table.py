"""Results side by side as a table, in the labels and formats that the metrics' descriptions give."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..errors import input_error
from ..metrics import METRIC_DESCRIPTIONS, MetricDescription, MetricResult
from ..metrics.description import undescribed
from .evaluation_result import EvaluationResult
from .terminal import terminal_table

# Figures of the cost, which stand below the metrics.
_COSTS = {
    "seconds": MetricDescription("seconds", "seconds of training", unit="s", format=".1f"),
    "peak_memory_mb": MetricDescription("peak_memory_mb", "peak memory (MB)", unit="MB", format=".0f"),
}


@dataclass(frozen=True)
class TableRow:
    """A figure of several models, as people read it.

    Attributes:
        metric: its name.
        label: what a table calls it.
        values: one a model, None where a model has none.
        intervals: "96.9, 100.0", the 95% interval of each value in the value's units, None where there is none.
    """

    metric: str
    label: str
    values: list[str | None]
    intervals: list[str | None]

    @property
    def cells(self) -> list[str]:
        """Values with their intervals in brackets, "-" where there is none."""
        pairs = zip(self.values, self.intervals, strict=True)
        return ["-" if value is None else value if ends is None else f"{value} [{ends}]" for value, ends in pairs]


def comparison_table(
    results: Mapping[str, EvaluationResult],
    costs: Mapping[str, Mapping[str, float]] | None = None,
    *,
    everything: bool = False,
) -> str:
    """Results side by side, a row a metric with its 95% interval in brackets; "-" where a model has none.

    It fits the terminal (80 columns where there is none): intervals go below their figures where they must.

    Args:
        results: by name of the model.
        costs: by name of the model, figures to add (`seconds`, `peak_memory_mb`).
        everything: all metrics, not the suite's headline alone.
    """
    rows = table_rows(results, costs, everything=everything)
    return terminal_table(["", *results], [[row.label, *row.cells] for row in rows])


def table_rows(
    results: Mapping[str, EvaluationResult],
    costs: Mapping[str, Mapping[str, float]] | None = None,
    *,
    everything: bool = False,
) -> list[TableRow]:
    """The rows of `comparison_table`, for those who set them in another type."""
    if not isinstance(results, Mapping) or not results:
        raise input_error(
            expected="results by name of their models",
            got=f"a {type(results).__name__}" if not isinstance(results, Mapping) else "none",
            why="a table has a column for each result",
            fix='comparison_table({"before": before, "after": after})',
        )
    costs = costs or {}
    names = list(results)
    rows = []
    for metric in _shown(results, everything):
        figures = [results[name].metrics.get(metric) for name in names]
        if any(figures):
            described = description_of(metric, results.values())
            values = [None if figure is None else described.write(figure.value) for figure in figures]
            rows.append(TableRow(metric, described.title, values, [_ends(described, figure) for figure in figures]))
    for cost in dict.fromkeys(name for spent in costs.values() for name in spent):
        described = description_of(cost)
        numbers = [costs.get(name, {}).get(cost) for name in names]
        values = [None if number is None else described.write(number) for number in numbers]
        rows.append(TableRow(cost, described.title, values, [None] * len(names)))
    return rows


def description_of(metric: str, results: Iterable[EvaluationResult] = ()) -> MetricDescription:
    """What a metric means: as this package describes it, or as results carry it, or what its name tells.

    No plugin is imported for it: a saved result has the descriptions of the metrics that came from one.
    """
    packaged = METRIC_DESCRIPTIONS.packaged.get(metric) or _COSTS.get(metric)
    carried = (result.descriptions[metric] for result in results if metric in result.descriptions)
    return packaged or next(carried, None) or undescribed(metric)


def label_of(metric: str, results: Iterable[EvaluationResult] = ()) -> str:
    """What a table calls a metric."""
    return description_of(metric, results).title


def _shown(results: Mapping[str, EvaluationResult], everything: bool) -> list[str]:
    first = next(iter(results.values()))
    every = list(dict.fromkeys(metric for result in results.values() for metric in result.metrics))
    return every if everything or not first.headline else [name for name in first.headline if name in every]


def _ends(described: MetricDescription, result: MetricResult | None) -> str | None:
    if result is None or result.low is None or result.high is None:
        return None
    return ", ".join(described.write(end).removesuffix("%") for end in (result.low, result.high))
