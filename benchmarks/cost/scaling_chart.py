"""Draws the ratios of scaling.py to plain Trainer over each axis."""

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

LABELS = {
    "vocabulary": "vocabulary",
    "length": "longest row (tokens)",
    "batch": "forget rows a step",
    "ranks": "ranks (DDP)",
}
QUANTITIES = {"cpu_ratio": "CPU time of a step", "memory_ratio": "peak memory above weights,\ngradients, optimizer"}
STYLES = {"llama": ("-", "o"), "opt": ("--", "s")}


def draw(results: list[dict[str, Any]], path: Path) -> None:
    """One column an axis, time above and memory below; plain Trainer is the line at 1."""
    axes = [axis for axis in LABELS if any(row["axis"] == axis for row in results)]
    methods = list(dict.fromkeys(row["method"] for row in results))
    colours = dict(zip(methods, pyplot.rcParams["axes.prop_cycle"].by_key()["color"], strict=False))
    figure, grid = pyplot.subplots(
        len(QUANTITIES), len(axes), figsize=(3.6 * len(axes) + 1, 6.6), squeeze=False, sharey="row"
    )
    for row_of_plots, (quantity, name) in zip(grid, QUANTITIES.items(), strict=True):
        for plot, axis in zip(row_of_plots, axes, strict=True):
            draw_axis(plot, [row for row in results if row["axis"] == axis], quantity, colours)
            plot.set_xlabel(LABELS[axis])
        row_of_plots[0].set_ylabel(f"{name}\n(plain Trainer = 1)")
        row_of_plots[0].set_ylim(bottom=0)
    handles: dict[str, Any] = {}
    for plot in grid.flat:
        handles |= {text: handle for handle, text in zip(*plot.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="lower center", ncols=3, frameon=False, fontsize=9)
    figure.tight_layout(rect=(0, 0.04 + 0.028 * (1 + len(handles) // 3), 1, 1))
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def draw_axis(plot: Any, rows: list[dict[str, Any]], quantity: str, colours: dict[str, str]) -> None:
    plot.axhline(1, color="black", linewidth=1.2)
    for i, (method, colour) in enumerate(colours.items()):
        for architecture, (style, marker) in STYLES.items():
            line = [r for r in rows if (r["method"], r["sizes"]["architecture"]) == (method, architecture)]
            if line:
                names = {"llama": "Llama", "opt": "OPT"}
                plot.plot(
                    [r["value"] for r in line],
                    [r[quantity] for r in line],
                    style,
                    marker=marker,
                    markersize=8 - i,  # where lines fall together, those below still show
                    linewidth=4 - 0.6 * i,
                    alpha=0.85,
                    color=colour,
                    label=f"{method}: {names[architecture]}",
                )
    values = sorted({row["value"] for row in rows})
    plot.set_xscale("log", base=2)
    plot.set_xticks(values, [f"{value // 1024}k" if value >= 4096 else str(value) for value in values])
    plot.minorticks_off()
    plot.grid(axis="y", alpha=0.3)
