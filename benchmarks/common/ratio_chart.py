"""Bar charts of ratios, one panel a figure, for step_time.py and evaluation_time.py."""

from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure


def draw(panels: Mapping[str, Mapping[str, float]], path: Path, reference: str) -> None:
    """Horizontal bars.

    Args:
        panels: by heading, the ratio of each name.
        path: PNG file.
        reference: what a ratio of 1 is.
    """
    names = list(next(iter(panels.values())))
    size = (2.5 + 3.6 * len(panels), 1.2 + 0.26 * len(names))
    figure = Figure(figsize=size, layout="constrained")
    drawn = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (heading, ratios) in zip(drawn, panels.items(), strict=True):
        values = [ratios[name] for name in reversed(names)]
        axes.barh(range(len(names)), values, height=0.65, color="#4878a8")
        for place, value in enumerate(values):
            axes.text(value, place, f" {value:.2f}", va="center", fontsize=8)
        axes.axvline(1, color="black", linewidth=1)
        axes.set_yticks(range(len(names)), list(reversed(names)), fontsize=9)
        axes.set_xlim(0, 1.15 * max(1, *values))
        axes.set_title(heading, fontsize=10)
        axes.set_xlabel(f"{reference} = 1", fontsize=9)
    figure.savefig(path, dpi=110)
