"""The plot of a sweep: forgetting and, where there is one, traceability against the drop of utility, and the front."""

from pathlib import Path
from typing import Any

from ...results.report.figures import COLORS
from .choice import front
from .objectives import UTILITY
from .run import Sweep

_WIDTH, _HEIGHT, _DPI = 5.2, 4.2, 150


def write_plot(sweep: Sweep, file: Path) -> Path:
    """A PNG with a panel for each objective beside utility; of a sweep without utility, over the runs in order."""
    from matplotlib.figure import Figure

    names = [one.name for one in sweep.objectives]
    others = [place for place, name in enumerate(names) if name != UTILITY] or [0]
    figure = Figure(figsize=(_WIDTH * len(others), _HEIGHT), layout="constrained")
    for axes, place in zip(figure.subplots(1, len(others), squeeze=False)[0], others, strict=True):
        _panel(axes, sweep, place)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, frameon=False)
    figure.savefig(file, dpi=_DPI)
    return file


def _panel(axes: Any, sweep: Sweep, place: int) -> None:
    names = [one.name for one in sweep.objectives]
    across = names.index(UTILITY) if UTILITY in names else None

    def at(trial: Any) -> tuple[float, float]:
        return (trial.number if across is None else 100 * trial.figures[across]), trial.figures[place]

    done = [trial for trial in sweep.trials if trial.figures]
    on_front = {trial.number for trial in front(sweep.trials)}
    groups = (
        ("other runs", [t for t in done if t.number not in on_front and not t.unchanged], "o", "muted", 28),
        ("front", [t for t in done if t.number in on_front and not t.unchanged], "o", "after", 44),
        ("unchanged recipe", [t for t in done if t.unchanged], "D", "oracle", 64),
    )
    for label, trials, marker, colour, size in groups:
        if trials:
            x, y = zip(*(at(trial) for trial in trials), strict=True)
            hollow = label == "other runs"
            fill = {"facecolors": "none"} if hollow else {"color": COLORS[colour]}
            axes.scatter(x, y, marker=marker, s=size, edgecolors=COLORS[colour], label=label, zorder=3, **fill)
    best, highest = at(sweep.best), max(at(trial)[1] for trial in done)
    axes.set_ylim(-0.04 * max(highest, 0.1), 1.1 * max(highest, 0.1))
    axes.scatter(*best, marker="o", s=190, facecolors="none", edgecolors=COLORS["ink"], label="chosen", zorder=4)
    axes.set_xlabel("run" if across is None else f"{sweep.objectives[across].metric}: drop in points")
    axes.set_ylabel(f"{names[place]}: {sweep.objectives[place].metric}")
    axes.set_title(f"{names[place].capitalize()}, smaller is better", loc="left", fontsize=11, fontweight="bold")
    axes.grid(color=COLORS["grid"], linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
