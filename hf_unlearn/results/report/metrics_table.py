"""A table of metrics as a page has it: grouped by the rows they speak of, a bar with each value, equal rows apart."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ...metrics import MetricDescription, MetricResult
from ..evaluation_result import EvaluationResult
from ..table import TableRow, description_of, table_rows
from .plane_drawing import ends

# What the groups are called, in their order; "" is of metrics that speak of more than one set.
_GROUPS = {
    "forget": "Forget rows",
    "in_scope": "Forget rows in other words (in scope)",
    "": "Forget rows against unseen rows and the oracle",
    "holdout": "Unseen rows (holdout)",
    "retain": "Retain rows",
    "out_of_scope": "Rows near by (out of scope)",
    "real_authors": "Real authors",
    "world_facts": "World facts",
}


@dataclass(frozen=True)
class Mark:
    """A value on its track with its interval, in percent of the track's width."""

    value: float
    low: float
    width: float


@dataclass(frozen=True)
class Cell:
    """A value of a model.

    Attributes:
        value: as people read it; None where there is none.
        interval: "96.9, 100.0"; None where there is none.
        hint: what is said when it is pointed at.
        mark: of its bar; None where it cannot be drawn.
    """

    value: str | None
    interval: str | None
    hint: str
    mark: Mark | None


@dataclass(frozen=True)
class Row:
    """A metric; `about` says what it measures."""

    label: str
    about: str
    cells: list[Cell]


@dataclass(frozen=True)
class Group:
    """The metrics of one set."""

    name: str
    rows: list[Row]


@dataclass(frozen=True)
class MetricsTable:
    """A table.

    Attributes:
        models: its columns.
        groups: its rows, by set.
        equal: label and value of metrics that all models agree in, or that are 0 wherever they are known.
    """

    models: list[str]
    groups: list[Group]
    equal: list[tuple[str, str]]

    @property
    def size(self) -> int:
        """How many metrics it has, those included that are folded."""
        return sum(len(group.rows) for group in self.groups) + len(self.equal)


def metrics_table(results: Mapping[str, EvaluationResult], *, everything: bool = False) -> MetricsTable | None:
    """Results of one suite side by side; None without any.

    Args:
        results: by name of the model.
        everything: all metrics, not the suite's headline alone.
    """
    if not results:
        return None
    groups: dict[str, list[Row]] = {}
    equal = []
    after = results.get("after")
    pair = (after.pair or ()) if after is not None else ()
    for row in table_rows(results, everything=everything):
        figures = [result.metrics.get(row.metric) for result in results.values()]
        # What the verdict rests on is always shown.
        if row.metric not in pair and _agree(row, figures):
            equal.append((row.label, next(value for value in row.values if value is not None)))
            continue
        described = description_of(row.metric, results.values())
        groups.setdefault(described.rows, []).append(_row(row, figures, described))
    order = [name for name in _GROUPS if name in groups] + [name for name in groups if name not in _GROUPS]
    named = [Group(_GROUPS.get(name, name.replace("_", " ")), groups[name]) for name in order]
    return MetricsTable(list(results), named, equal)


def _agree(row: TableRow, figures: list[MetricResult | None]) -> bool:
    """Whether a row tells no model from another: all have the same value, or the only ones that are known are 0."""
    known = [figure.value for figure in figures if figure is not None]
    if not known or len({value for value in row.values if value is not None}) > 1:
        return False
    return len(known) > 1 or known[0] == 0


def _row(row: TableRow, figures: list[MetricResult | None], described: MetricDescription) -> Row:
    most = _most(figures)
    cells = []
    for value, interval, figure in zip(row.values, row.intervals, figures, strict=True):
        hint = "" if figure is None else f"{f'95% interval {interval}; ' if interval else ''}n = {figure.n:,}"
        cells.append(Cell(value, interval, hint, None if figure is None else _mark(figure, most)))
    return Row(row.label, described.about, cells)


def _most(figures: list[MetricResult | None]) -> float | None:
    """The value at the end of the track: 1 of shares and the like, else the largest; None where some lie below 0."""
    limits = [end for figure in figures if figure is not None for end in (figure.value, *ends(figure))]
    finite = [end for end in limits if math.isfinite(end)]
    if not finite or min(finite) < 0:
        return None
    return 1.0 if max(finite) <= 1.0 else max(finite)


def _mark(figure: MetricResult, most: float | None) -> Mark | None:
    if most is None or not math.isfinite(figure.value):
        return None
    low, high = ends(figure)
    return Mark(100 * figure.value / most, 100 * low / most, 100 * (high - low) / most)
