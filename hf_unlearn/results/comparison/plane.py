"""The plane of forgetting and utility of a setting: methods as means over seeds, the front as a line through them."""

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

from ..report.figures import COLORS, Panel, Plot
from .comparison import ComparedSetting
from .spread import Spread

# Told apart with any colour vision, and by their markers besides; light scheme, as the colours of models are.
_COLORS = ("after", "forget", "retain", "holdout", "ink")
_MARKERS = ("o", "^", "s", "D", "v", "P", "X")
_LEAST = 0.02  # of a percentage or a score, that an axis shows at the least
_PAD = 0.12


@dataclass(frozen=True)
class _Place:
    """A method in the plane."""

    label: str
    x: Spread
    y: Spread
    on_front: bool


def plane_plot(setting: ComparedSetting, name: str = "plane", scale: float = 1.5) -> Plot | None:
    """The plot of a setting; None where no method has finite figures of the suite's pair.

    Args:
        setting: of the comparison.
        name: of the plot's file.
        scale: of its size, beside which letters keep theirs.
    """
    if setting.pair is None:
        return None
    forget, utility = setting.pair
    places = [
        _Place(method.label, method.figures[forget], method.figures[utility], method.standing.on_front)
        for method in setting.methods
        if forget in method.figures and utility in method.figures
    ]
    places = [place for place in places if math.isfinite(place.x.mean) and math.isfinite(place.y.mean)]
    if not places:
        return None
    marks = {
        model: (figures[forget].mean, figures[utility].mean)
        for model, figures in setting.models.items()
        if forget in figures and utility in figures and math.isfinite(figures[forget].mean + figures[utility].mean)
    }
    labels = [setting.descriptions[metric].title for metric in setting.pair]
    shares = [setting.descriptions[metric].in_points for metric in setting.pair]
    draw = partial(_draw, places=places, marks=marks, labels=labels, shares=shares)
    front = [place.label for place in places if place.on_front]
    summary = "; ".join(
        [
            *(f"{place.label}: {labels[0]} {place.x.mean:.3g}, {labels[1]} {place.y.mean:.3g}" for place in places),
            f"on the front: {', '.join(front) or 'none'}",
        ]
    )
    return Plot(
        name, "Methods: forgetting against utility", _caption(setting, marks), [Panel(draw, summary, scale=scale)]
    )


def _caption(setting: ComparedSetting, marks: dict[str, tuple[float, float]]) -> str:
    more = " An arrow points to the model before, which lies outside." if "before" in marks else ""
    aim = " The empty diamond is the oracle, the aim." if "oracle" in marks else ""
    named = ", ".join(setting.axes)
    return (
        "Each large point is the mean of a method over its seeds, bars are ± one standard deviation, small points "
        "are single seeds. Further left, less is left of what was to be forgotten; further up, more is kept. Ringed "
        f"points are on the front of the shares {named}, not of these two figures alone.{aim}{more}"
    )


def _draw(
    ax: Any, places: list[_Place], marks: dict[str, tuple[float, float]], labels: list[str], shares: list[bool]
) -> None:
    for index, place in enumerate(places):
        color = COLORS[_COLORS[index % len(_COLORS)]]
        marker = _MARKERS[index % len(_MARKERS)]
        ax.plot(place.x.values, place.y.values, marker, ls="none", ms=3.5, color=color, alpha=0.55, mew=0, zorder=3)
        means, sds = (place.x.mean, place.y.mean), (place.x.sd or 0.0, place.y.sd or 0.0)
        ax.errorbar(
            means[0], means[1], xerr=sds[0], yerr=sds[1], color=color, fmt="none", lw=1.2, alpha=0.75, zorder=4
        )
        label = f"{place.label} (front)" if place.on_front else place.label
        ax.plot(*means, marker, ms=8, color=color, mec=COLORS["paper"], ls="none", label=label, zorder=5)
        if place.on_front:
            ax.plot(*means, "o", ms=15, mfc="none", mec=color, mew=1.2, zorder=4)
    if "oracle" in marks:
        look: dict[str, Any] = dict(ms=11, mfc="none", mec=COLORS["oracle"], mew=1.8, ls="none", zorder=4)
        ax.plot(*marks["oracle"], "D", label="oracle", **look)
    _limits(ax, places, marks)
    if "before" in marks:
        _mark_before(ax, marks["before"])
    ax.set_xlabel(f"{labels[0]}\n(left: more forgotten)")
    ax.set_ylabel(f"{labels[1]}\n(up: more kept)")
    for axis, in_percent in zip((ax.xaxis, ax.yaxis), shares, strict=True):
        if in_percent:
            from matplotlib.ticker import FuncFormatter

            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.3g}%"))
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1.02), ncols=3)


def _limits(ax: Any, places: list[_Place], marks: dict[str, tuple[float, float]]) -> None:
    """Cropped to methods and oracle: the model before would press them into a corner."""
    shown = [marks["oracle"]] if "oracle" in marks else []
    for axis, of_place, mark in ((0, "x", ax.set_xlim), (1, "y", ax.set_ylim)):
        spreads: list[Spread] = [getattr(place, of_place) for place in places]
        values = [value for spread in spreads for value in spread.values] + [one[axis] for one in shown]
        values += [spread.mean + sign * (spread.sd or 0.0) for spread in spreads for sign in (-1, 1)]
        low, high = min(values), max(values)
        middle, reach = (low + high) / 2, max(high - low, _LEAST) * (0.5 + _PAD)
        mark(middle - reach, middle + reach)


def _mark_before(ax: Any, before: tuple[float, float]) -> None:
    """The model before as a point where it lies inside, else as an arrow at the edge."""
    (x_low, x_high), (y_low, y_high) = ax.get_xlim(), ax.get_ylim()
    x, y = before
    if x_low <= x <= x_high and y_low <= y <= y_high:
        ax.plot(x, y, "s", ms=7, color=COLORS["before"], ls="none", label="before", zorder=4)
        return
    # From just inside of the edge towards where it lies.
    edge = (min(max(x, x_low), x_high), min(max(y, y_low), y_high))
    start = (
        edge[0] - 0.1 * (x_high - x_low) * _sign(x - edge[0]),
        edge[1] - 0.1 * (y_high - y_low) * _sign(y - edge[1]),
    )
    look: dict[str, Any] = dict(arrowstyle="-|>", color=COLORS["before"], lw=1.4)
    ax.annotate("", edge, start, arrowprops=look, annotation_clip=False, zorder=6)
    ax.annotate(
        "before", start, (0, 7), textcoords="offset points", color=COLORS["before"], ha="center", va="bottom", zorder=6
    )


def _sign(number: float) -> float:
    return math.copysign(1.0, number) if number else 0.0
