"""Draws what edits_tofu.py measured: recipes between utility, relearning, membership and cost; the Pareto front."""

from pathlib import Path
from statistics import median
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

# panel -> (figure across, its label, figure upward, its label); less is better on both
PANELS = (
    ("lost", "retain probability lost", "relearnt_probability", "forget probability after 25 relearning steps"),
    ("lost", "retain probability lost", "told", "membership: |AUC - oracle's|, the worse of loss and min-k"),
    ("train_cpu_seconds", "CPU seconds", "relearnt_probability", "forget probability after 25 relearning steps"),
)
_FLOOR, _SECONDS = 1e-3, 1.0  # below these a loss of utility and a time are drawn at the edge


def draw(results: dict[str, Any], losses: list[dict[str, Any]], path: Path) -> None:
    """A numbered mark for each recipe, the median of its seeds; a line through those that no other beats on both axes.

    Args:
        results: of edits_tofu.py.
        losses: runs of levels.py.
        path: of the PNG file.
    """
    kinds = [("edits, suppressions, RL", "o", results["runs"]), ("losses", "s", losses)]
    names = list(dict.fromkeys(run["recipe"] for _, _, runs in kinds for run in runs))
    numbers = {name: number for number, name in enumerate(names, 1)}
    figure = Figure(figsize=(19, 6.5), layout="constrained")
    *panels, key = figure.subplots(1, len(PANELS) + 1, width_ratios=[1] * len(PANELS) + [0.45])
    for axes, (across, across_label, upward, upward_label) in zip(panels, PANELS, strict=True):
        points = {}
        for label, marker, runs in kinds:
            own = {
                name: (_figure(results, runs, name, across), _figure(results, runs, name, upward))
                for name in dict.fromkeys(run["recipe"] for run in runs)
            }
            axes.scatter(*zip(*own.values(), strict=True), marker=marker, s=36, label=label) if own else None
            points |= own
        for name, place in points.items():
            axes.annotate(str(numbers[name]), place, fontsize=8, xytext=(4, 3), textcoords="offset points")
        _front(axes, list(points.values()))
        if upward in results["oracle"]:
            axes.axhline(results["oracle"][upward], color="black", linestyle="--", label="oracle")
        axes.margins(0.18)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel(across_label)
        axes.set_ylabel(upward_label)
        axes.grid(linewidth=0.3)
    key.axis("off")
    key.legend(*panels[0].get_legend_handles_labels(), loc="upper left", fontsize=8)
    key.text(0, 0.8, "\n".join(f"{number}  {name}" for name, number in numbers.items()), va="top", fontsize=8)
    figure.savefig(path, dpi=110)


def _figure(results: dict[str, Any], runs: list[dict[str, Any]], recipe: str, name: str) -> float:
    """The median of a recipe's seeds."""
    return median(_value(results, run, name) for run in runs if run["recipe"] == recipe)


def _value(results: dict[str, Any], run: dict[str, Any], name: str) -> float:
    if name == "lost":
        return max(_FLOOR, results["before"]["retain_probability"] - run["retain_probability"])
    if name == "told":
        return max(abs(run[auc] - results["oracle"][auc]) for auc in ("loss_auc", "min_k_auc"))
    return max(_SECONDS, float(run[name])) if name == "train_cpu_seconds" else float(run[name])


def _front(axes: Axes, points: list[tuple[float, float]]) -> None:
    """A line through the points that no other beats on both axes."""
    best: list[tuple[float, float]] = []
    for point in sorted(points):
        if not best or point[1] < best[-1][1]:
            best.append(point)
    axes.plot(*zip(*best, strict=True), color="tab:green", linewidth=1, label="Pareto front")
