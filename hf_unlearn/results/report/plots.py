"""Which plots a run has: losses over steps, the plane of forgetting and utility, the rows' likelihoods.

They are made of the record and of the scores of rows; how lines and points are drawn is not decided here.
"""

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from ..evaluation_result import EvaluationResult
from ..record import PLOTS, PLOTS_OF, RunRecord
from ..verdict import MODELS, side_by_side
from .attack_plots import courses_plot, excess_plot
from .charts import lines_chart, panel_of, shares_chart
from .drawings import Level, Line, draw_lines, draw_shares
from .figures import Plot, save_plot
from .planes import plane
from .read import Run

_NLL = {"forget_nll": "forget", "retain_nll": "retain", "holdout_nll": "holdout"}
_SIDES = {"forget": "forget", "retain": "retain", "anchor": "holdout"}  # and how they are drawn
_BOUNDS = {
    "log_vocab": "bound: uniform guess",
    "holdout": "bound: unseen rows",
    "holdout_quantiles": "bounds of rows",
    "levels": "levels of rows",
}
_ROW_SETS = {
    "forget_nll": ("Forget rows", "nats per token"),
    "holdout_nll": ("Unseen rows (holdout)", "nats per token"),
    "retain_nll": ("Retain rows", "nats per token"),
    "forget_truth_ratios": ("Forget rows: truth ratio", "truth ratio"),
}


def write_plots(run: Run, folder: str | os.PathLike[str]) -> dict[str, str]:
    """Each plot of a run as PNG and SVG, on white, in `folder`/plots.

    Returns:
        the PNG by the plot's title, relative to `folder`: {"Loss over the steps": "plots/losses.png"}.
    """
    target = Path(folder)
    saved = {plot.title: save_plot(plot, target / PLOTS) for plot in run_plots(run)}
    for old in (target / PLOTS).glob("*.[ps][nv]g"):
        if old.stem not in {path.stem for path in saved.values()}:
            old.unlink()  # of an earlier run in this folder, which had more to show
    if saved:
        (target / PLOTS / PLOTS_OF).write_text(run.record.figures_hash(), encoding="utf-8")
    return {title: path.relative_to(target).as_posix() for title, path in saved.items()}


def run_plots(run: Run) -> list[Plot]:
    """The plots that the run has data for."""
    report = run.record.attack_report
    plots = (losses(run.record), plane({"": run}), distributions(run), excess_plot(report), courses_plot(report))
    return [plot for plot in plots if plot is not None]


def losses(record: RunRecord) -> Plot | None:
    """The components of the loss over the steps, with the bound of the forget rows; None without a log."""
    entries = [entry for entry in record.log if "loss" in entry and "step" in entry]
    names = list(dict.fromkeys(name for entry in entries for name in entry))
    lines = {name: _points(entries, name) for name in names}
    lines = {name: points for name, points in lines.items() if points}
    groups: dict[str, list[Line]] = {
        "NLL (nats per token)": [Line(kind, kind, lines[name]) for name, kind in _NLL.items() if name in lines],
        "Loss minimised": [Line("total", "after", lines["loss"])] if "loss" in lines else [],
    }
    for name in lines:
        side, _, term = name.partition("/")
        if term and side in _SIDES:
            groups[f"{side.capitalize()} term: {term}"] = [Line(term, _SIDES[side], lines[name])]
    if "retain_weight" in lines:
        groups["Weight of the retain side"] = [Line("weight", "retain", lines["retain_weight"])]
    if "level_distance" in lines:
        groups["Median distance to the levels"] = [Line("distance", "forget", lines["level_distance"])]
    panels = []
    for title, group in groups.items():
        if group:
            levels = _levels(record) if title.startswith("NLL") else []
            shown = group if levels or len(group) > 1 else [Line("_", line.kind, line.points) for line in group]
            words = _course(title, group)
            panels.append(panel_of(draw_lines, lines_chart, words, title=title, lines=shown, levels=levels))
    if "bound_share" in lines and _may_be_bounded(record):
        line, title = Line("_", "forget", lines["bound_share"]), "Forget rows at the bound"
        words = _course(title, [line])
        panels.append(panel_of(draw_lines, lines_chart, words, title=title, lines=[line], share=True))
    if not panels:
        return None
    return Plot("losses", "Loss over the steps", _losses_caption(entries, record), panels)


def distributions(run: Run) -> Plot | None:
    """How the likelihood of single rows is spread, before, after and in the oracle; None without scores of rows."""
    results = {name: result for name, result in side_by_side(run.evaluations).items() if name in MODELS}
    panels, left_out = [], 0
    scores = {name: _rows(results, name) for name in _ROW_SETS}
    finite = {
        name: {model: list(filter(math.isfinite, values)) for model, values in rows.items()}
        for name, rows in scores.items()
    }
    # One scale for the sets that are compared with each other; retain rows are too likely to be seen on it.
    unseen = [max(values) for name in ("forget_nll", "holdout_nll") for values in finite[name].values() if values]
    for name, (title, unit) in _ROW_SETS.items():
        rows = {model: values for model, values in finite[name].items() if values}
        left_out += sum(map(len, scores[name].values())) - sum(map(len, rows.values()))
        if rows:
            most = max(unseen) if name in ("forget_nll", "holdout_nll") else max(map(max, rows.values()))
            middles = ", ".join(f"{model} {median(values):.3g}" for model, values in rows.items())
            words = f"{title}, cumulated over rows; median {unit}: {middles}"
            shares: dict[str, Any] = dict(title=title, unit=unit, rows=rows, most=most or 1.0)
            panels.append(panel_of(draw_shares, shares_chart, words, **shares))
    if not panels:
        return None
    caption = (
        "A curve gives the share of rows whose NLL is at most the value below it: the further right, the less likely "
        "the model finds the rows. Forgetting that looks like never having seen the rows brings the curve of the "
        "forget rows to the oracle's, and near that of unseen rows; to the right of both it overshoots, which shows "
        "as well. Curves of retain rows should stay together; mind that they have a scale of their own."
    )
    if finite["forget_truth_ratios"]:
        caption += " The truth ratio is to be compared with the oracle's, whichever side it lies on."
    if left_out:
        caption += f" {left_out} values that are not finite are left out."
    return Plot("distributions", "Likelihood of single rows", caption, panels)


def _rows(results: Mapping[str, EvaluationResult], name: str) -> dict[str, list[float]]:
    return {model: result.row_scores[name] for model, result in results.items() if result.row_scores.get(name)}


def _points(entries: Sequence[Mapping[str, Any]], name: str) -> list[tuple[float, float]]:
    """(step, value) of a component; numbers that are not finite, which JSON has as words, are left out."""
    points = []
    for entry in entries:
        value = entry.get(name)
        number = float(value) if isinstance(value, int | float) else math.nan
        if math.isfinite(number):
            points.append((float(entry["step"]), number))
    return points


def _levels(record: RunRecord) -> list[Level]:
    bound, levels = record.objective.bound, []
    label = _BOUNDS.get(str(bound.get("setting")), "bound")
    low, high = bound.get("nats", bound.get("low")), bound.get("nats", bound.get("high"))
    if isinstance(low, int | float) and isinstance(high, int | float) and math.isfinite(low + high):
        levels.append(Level(label, float(low), float(high)))
    if record.holdout_nll is not None and bound.get("setting") != "holdout" and math.isfinite(record.holdout_nll):
        levels.append(Level("unseen rows before", record.holdout_nll, record.holdout_nll))
    return levels


def _course(title: str, lines: Sequence[Line]) -> str:
    ways = [f"{'' if line.label == '_' else line.label + ' '}from {line.points[0][1]:.3g} to {line.points[-1][1]:.3g}"
            for line in lines]  # fmt: skip
    return f"{title} over the optimizer steps: {', '.join(ways)}"


def _may_be_bounded(record: RunRecord) -> bool:
    """False where the record says that the run had no row bound."""
    return record.objective.bound.get("setting", "") is not None


def _losses_caption(entries: Sequence[Mapping[str, Any]], record: RunRecord) -> str:
    caption = (
        "As Trainer logged them, each value a mean over the steps since the last. A rising NLL of the forget rows is "
        "the forgetting; that of the retain rows should stay where it was."
    )
    if record.objective.bound and _may_be_bounded(record):
        both = record.objective.bound.get("sides") == "both"
        caption += f" A forget row that has reached the bound {'is pulled back to it' if both else 'stops pushing'}."
    words = sum(str(value) in ("nan", "inf", "-inf") for entry in entries for value in entry.values())
    if words:
        caption += f" {words} values that are not finite are left out: the loss was not finite at those steps."
    return caption
