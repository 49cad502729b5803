"""The plane of forgetting and utility of one or several runs: which models stand in it, and how it is read."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ..evaluation_result import EvaluationResult
from ..record import RunRecord
from ..table import description_of, label_of
from ..verdict import MODELS, oracle_words, side_by_side
from .charts import panel_of, plane_chart
from .figures import Plot
from .plane_drawing import Point, draw_plane, frame_of
from .read import Run


def plane(runs: Mapping[str, Run]) -> Plot | None:
    """The forget metric against the utility, for runs of one suite by the label of their points; None without both."""
    results = {label: side_by_side(run.evaluations) for label, run in runs.items()}
    after = next((evaluations["after"] for evaluations in results.values() if "after" in evaluations), None)
    names = None if after is None else after.pair
    if after is None or names is None:
        return None
    points: list[Point] = []
    for label, evaluations in results.items():
        points += _points_of(evaluations, names, label, runs[label])
    if not any(point.kind == "after" for point in points):
        return None
    labels = (label_of(names[0], [after]), label_of(names[1], [after]))
    points = _once(points)
    outside = bool(frame_of(points).outside)
    caption = plane_caption(runs, any(point.kind == "oracle" for point in points), labels, outside=outside)
    summary = "; ".join(
        f"{point.kind}{' ' + point.label if point.label else ''}: {labels[0]} {point.x.value:.3g}, {labels[1]} "
        f"{point.y.value:.3g}"
        for point in points
    )
    shares = [description_of(name, [after]).in_points for name in names]
    arguments: dict[str, Any] = {"points": points, "shares": shares, "labels": labels}
    panel = panel_of(draw_plane, plane_chart, summary, scale=1.2, **arguments)
    return Plot("plane", "Forgetting against utility", caption, [panel])


def plane_caption(
    runs: Mapping[str, Run], with_oracle: bool, labels: tuple[str, str] | None = None, *, outside: bool = False
) -> str:
    """How a plane is read, or several of them whose metrics differ."""
    forget, utility = ("", "") if labels is None else (f" ({label})" for label in labels)
    caption = (
        f"Each point is a model: further left, less is left of what was to be forgotten{forget}; further up, more is "
        f"kept{utility}. Bars are 95% intervals."
    )
    if with_oracle:
        caption += f" The aim is the oracle: {_oracle(runs)}."
    if outside:
        caption += " The model before unlearning lies far outside, where the arrow comes from."
    if any(runs):
        caption += " The numbers are those of the runs in the table; points that lie together share a label."
    return caption


def _oracle(runs: Mapping[str, Run]) -> str:
    """What it is; of runs whose oracles are not of one kind, what is known of all."""
    words = {oracle_words(run.record) for run in runs.values() if "oracle" in run.evaluations}
    return words.pop() if len(words) == 1 else oracle_words(RunRecord())


def method_words(record: RunRecord) -> str:
    """The methods of a run, as one name."""
    return " + ".join(record.methods) or "no method"


def _points_of(results: Mapping[str, EvaluationResult], names: tuple[str, str], label: str, run: Run) -> list[Point]:
    method = method_words(run.record) if label else "after"
    points = []
    for model in MODELS:
        pair = [results[model].metrics.get(name) if model in results else None for name in names]
        x, y = pair
        if x is not None and y is not None and math.isfinite(x.value) and math.isfinite(y.value):
            is_after = model == "after"
            name = f"{label} {run.title}".strip() if is_after else model
            points.append(Point(model, label if is_after else "", x, y, name, method))
    return points


def _once(points: Sequence[Point]) -> list[Point]:
    """Runs from one model share their points before and oracle."""
    seen, kept = set(), []
    for point in points:
        key = (point.kind, point.label, round(point.x.value, 9), round(point.y.value, 9))
        if key not in seen:
            seen.add(key)
            kept.append(point)
    return kept
