"""Draws the chart of the figures that methods.py measured."""

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

# panel -> (figure, heading)
PANELS = (
    ("forget_nll", "forget NLL (nats per token)"),
    ("harmful_rate", "harmful answers"),
    ("retain_accuracy", "retain answers right"),
    ("relearnt_probability", "probability after relearning"),
)
LABELS = {"none": "bound off", "holdout": "bound calibrated"}


def draw(results: dict[str, Any], path: Path) -> None:
    """A line for each recipe, a panel for each figure, a mark for each seed; before and oracle are vertical lines."""

    def distance(recipe: str) -> float:
        levels = [run["forget_nll"] for run in results["runs"] if run["recipe"] == recipe and run["bound"] != "none"]
        return abs(sum(levels) / max(1, len(levels)) - results["landmarks"]["oracle"]["forget_nll"])

    recipes = sorted({run["recipe"] for run in results["runs"]}, key=distance, reverse=True)
    bounds = sorted({run["bound"] for run in results["runs"]})
    figure = Figure(figsize=(14, 1.5 + 0.29 * len(recipes)), layout="constrained")
    panels = figure.subplots(1, len(PANELS), sharey=True)
    for axes, (column, heading) in zip(panels, PANELS, strict=True):
        for name, style in (("before", ":"), ("oracle", "--")):
            axes.axvline(results["landmarks"][name][column], color="black", linestyle=style, label=name)
        for place, bound in enumerate(bounds):
            runs = [run for run in results["runs"] if run["bound"] == bound]
            heights = [recipes.index(run["recipe"]) + 0.3 * place - 0.15 for run in runs]
            label, marker = LABELS.get(bound, f"bound {bound}"), "os^v"[place % 4]
            axes.scatter([run[column] for run in runs], heights, s=20, alpha=0.6, marker=marker, label=label)
        axes.set_title(heading, fontsize=11)
        axes.set_yticks(range(len(recipes)), recipes)
        axes.grid(axis="y", linewidth=0.4)
        if column == "forget_nll":  # from 0.01 before unlearning to tens of nats unbounded
            axes.set_xscale("log")
        else:
            axes.set_xlim(-0.03, 1.03)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    figure.savefig(path, dpi=110)
