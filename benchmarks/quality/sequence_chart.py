"""Draws what sequence.py measured: how far each request's rows drift while later requests are carried out."""

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

# figure of a request -> its label
OF_REQUESTS = {
    "level_error": "level error, nats per token",
    "loss_auc": "loss AUC against unseen rows",
    "relearnt_probability": "probability of the other half, relearnt",
}
OF_MODEL = {"retain_probability": "retain probability", "unseen_nll": "NLL of unseen rows, nats per token"}


def draw(results: dict[str, Any], path: Path) -> None:
    """A row of panels for each way, with a line for each request, and a last one for the model as a whole.

    Args:
        results: of sequence.py.
        path: of the PNG file.
    """
    runs = {run["way"]: run["after"] for run in results["runs"] if run["seed"] == 0}
    courses = {way: after for way, after in runs.items() if len(after) > 1}
    once = next((after for after in runs.values() if len(after) == 1), None)
    figure = Figure(figsize=(5.2 * len(OF_REQUESTS), 3.6 * (len(courses) + 1)), layout="constrained")
    panels = figure.subplots(len(courses) + 1, len(OF_REQUESTS), squeeze=False)
    for row, (way, after) in zip(panels, courses.items(), strict=False):
        for axes, (name, label) in zip(row, OF_REQUESTS.items(), strict=True):
            count = len(after[0]["requests"])
            for place in range(count):
                values = [step["requests"][place][name] for step in after[place:]]
                axes.plot(range(place + 1, count + 1), values, marker="o", markersize=3, label=f"request {place + 1}")
            known = [one[name] for one in results["oracle"]["requests"]]
            axes.axhline(sum(known) / len(known), color="black", linestyle="--", label="oracle, mean")
            if once is not None:
                ends = [one[name] for one in once[0]["requests"]]
                axes.axhline(sum(ends) / len(ends), color="gray", linestyle=":", label="all at once, mean")
            axes.set_title(way)
            axes.set_xlabel("requests carried out")
            axes.set_ylabel(label)
            axes.grid(linewidth=0.3)
    for axes, (name, label) in zip(panels[-1], OF_MODEL.items(), strict=False):
        for way, after in courses.items():
            values = [results["before"][name], *(step[name] for step in after)]
            axes.plot(range(len(values)), values, marker="o", markersize=3, label=way)
        if once is not None:
            axes.axhline(once[0][name], color="gray", linestyle=":", label="all at once")
        axes.axhline(results["oracle"][name], color="black", linestyle="--", label="oracle")
        axes.set_xlabel("requests carried out")
        axes.set_ylabel(label)
        axes.grid(linewidth=0.3)
        axes.legend(fontsize=7)
    for axes in panels.flat:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    key = panels[-1][len(OF_MODEL)]  # the legend of the upper rows
    key.axis("off")
    key.legend(*panels[0][0].get_legend_handles_labels(), loc="upper left", fontsize=8)
    figure.savefig(path, dpi=110)
