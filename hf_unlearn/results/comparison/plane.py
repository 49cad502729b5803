"""The planes of a setting: forgetting and traceability, each against utility; methods as means over their seeds."""

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
_LARGEST, _SMALLEST = 10.0, 5.5  # points: later methods are drawn smaller, so that those below are seen
_FITS = 18  # letters of all names together, above a plane
_LEAST = 0.02  # of a percentage or a score, that an axis shows at the least
_PAD = 0.12


@dataclass(frozen=True)
class _Place:
    """A method in the plane."""

    label: str
    x: Spread
    y: Spread
    on_front: bool


@dataclass(frozen=True)
class _Plane:
    """Two metrics of the methods, and of the models "before" and "oracle"; what the axes are called."""

    places: list[_Place]
    marks: dict[str, tuple[float, float]]
    labels: tuple[str, str]
    in_percent: tuple[bool, bool]


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
    planes = [_plane(setting, forget, utility, "(left: more forgotten)")]
    if setting.membership_metric:
        planes.append(_plane(setting, setting.membership_metric, utility, "(nearer to the oracle: less traced)"))
    planes = [plane for plane in planes if plane.places]
    if not planes:
        return None
    front = [method.label for method in setting.methods if method.standing.on_front]
    # Names that do not fit above a plane stand beside the planes.
    beside = len("".join(place.label for place in planes[0].places)) > _FITS
    panels = [
        Panel(partial(_draw, plane=plane, named=not beside), _summary(plane, front), scale=scale) for plane in planes
    ]
    if beside:
        panels.append(Panel(partial(_draw_key, plane=planes[0]), "Which mark is which method", scale=scale))
    return Plot(name, "Methods: forgetting and traceability against utility", _caption(setting), panels)


def _plane(setting: ComparedSetting, x: str, y: str, way: str) -> _Plane:
    places = [
        _Place(method.label, method.figures[x], method.figures[y], method.standing.on_front)
        for method in setting.methods
        if x in method.figures and y in method.figures
    ]
    marks = {
        model: (figures[x].mean, figures[y].mean)
        for model, figures in setting.models.items()
        if x in figures and y in figures and math.isfinite(figures[x].mean + figures[y].mean)
    }
    described = setting.descriptions[x], setting.descriptions[y]
    return _Plane(
        [place for place in places if math.isfinite(place.x.mean) and math.isfinite(place.y.mean)],
        marks,
        (f"{described[0].title}\n{way}", f"{described[1].title}\n(up: more kept)"),
        (described[0].in_points, described[1].in_points),
    )


def _summary(plane: _Plane, front: list[str]) -> str:
    x, y = (label.partition("\n")[0] for label in plane.labels)
    places = [f"{place.label}: {x} {place.x.mean:.3g}, {y} {place.y.mean:.3g}" for place in plane.places]
    return "; ".join([*places, f"on the front: {', '.join(front) or 'none'}"])


def _caption(setting: ComparedSetting) -> str:
    models = [model for model, figures in setting.models.items() if figures]
    aim = " The empty diamond is the oracle, the aim." if "oracle" in models else ""
    more = " An arrow points to the model before where it lies outside." if "before" in models else ""
    return (
        "Each large point is the mean of a method over its seeds, bars are ± one standard deviation, small points "
        f"are single seeds. Ringed points are on the front of the shares {', '.join(setting.axes)}.{aim}{more}"
    )


def _draw(ax: Any, plane: _Plane, *, named: bool) -> None:
    _draw_methods(ax, plane)
    _limits(ax, plane)
    if "before" in plane.marks:
        _mark_before(ax, plane.marks["before"])
    ax.set_xlabel(plane.labels[0])
    ax.set_ylabel(plane.labels[1])
    for axis, in_percent in zip((ax.xaxis, ax.yaxis), plane.in_percent, strict=True):
        axis.get_major_locator().set_params(nbins=6)
        if in_percent:
            axis.set_major_formatter(lambda value, _: f"{100 * value:.3g}%")
    if named:
        ax.legend(loc="lower left", bbox_to_anchor=(0, 1.02), ncols=3)


def _draw_key(ax: Any, plane: _Plane) -> None:
    """The marks and their names alone."""
    _draw_methods(ax, plane)
    handles, names = ax.get_legend_handles_labels()
    ax.clear()
    ax.axis("off")
    ax.legend(handles, names, loc="center left", fontsize=min(11.0, 200.0 / len(names)))


def _draw_methods(ax: Any, plane: _Plane) -> None:
    step = min(1.5, (_LARGEST - _SMALLEST) / max(1, len(plane.places) - 1))
    for index, place in enumerate(plane.places):
        color, marker = COLORS[_COLORS[index % len(_COLORS)]], _MARKERS[index % len(_MARKERS)]
        ax.plot(place.x.values, place.y.values, marker, ls="none", ms=3.5, color=color, alpha=0.55, mew=0, zorder=3)
        means, size = (place.x.mean, place.y.mean), _LARGEST - step * index
        bars: dict[str, Any] = dict(xerr=place.x.sd or 0.0, yerr=place.y.sd or 0.0, fmt="none", lw=1.2, alpha=0.75)
        ax.errorbar(*means, color=color, zorder=4, **bars)
        label = f"{place.label} (front)" if place.on_front else place.label
        ax.plot(*means, marker, ms=size, color=color, mec=COLORS["paper"], ls="none", label=label, zorder=5)
        if place.on_front:
            ax.plot(*means, "o", ms=size + 7, mfc="none", mec=color, mew=1.2, zorder=4)
    if "oracle" in plane.marks:
        look: dict[str, Any] = dict(ms=11, mfc="none", mec=COLORS["oracle"], mew=1.8, ls="none", zorder=4)
        ax.plot(*plane.marks["oracle"], "D", label="oracle", **look)


def _limits(ax: Any, plane: _Plane) -> None:
    """Cropped to methods and oracle: the model before would press them into a corner."""
    shown = [plane.marks["oracle"]] if "oracle" in plane.marks else []
    for axis, of_place, limit in ((0, "x", ax.set_xlim), (1, "y", ax.set_ylim)):
        spreads: list[Spread] = [getattr(place, of_place) for place in plane.places]
        values = [value for spread in spreads for value in spread.values] + [one[axis] for one in shown]
        values += [spread.mean + sign * (spread.sd or 0.0) for spread in spreads for sign in (-1, 1)]
        low, high = min(values), max(values)
        middle, reach = (low + high) / 2, max(high - low, _LEAST) * (0.5 + _PAD)
        start, end = middle - reach, middle + reach
        # No figure of these is below 0: there is nothing to be seen there but a point at 0 itself.
        limit(max(start, -0.08 * (end - start)) if low >= 0 else start, end)


def _mark_before(ax: Any, before: tuple[float, float]) -> None:
    """The model before as a point where it lies inside, else as an arrow at the edge."""
    (x_low, x_high), (y_low, y_high) = ax.get_xlim(), ax.get_ylim()
    x, y = before
    look: dict[str, Any] = dict(textcoords="offset points", color=COLORS["before"], ha="right", va="center")
    if x_low <= x <= x_high and y_low <= y <= y_high:
        ax.plot(x, y, "s", ms=7, color=COLORS["before"], ls="none", zorder=4)
        ax.annotate("before", (x, y), (-7, 0), zorder=6, **look)
        return
    # From just inside of the edge towards where it lies.
    edge = (min(max(x, x_low), x_high), min(max(y, y_low), y_high))
    start = (
        edge[0] - 0.1 * (x_high - x_low) * _sign(x - edge[0]),
        edge[1] - 0.1 * (y_high - y_low) * _sign(y - edge[1]),
    )
    arrow: dict[str, Any] = dict(arrowstyle="-|>", color=COLORS["before"], lw=1.4)
    ax.annotate("", edge, start, arrowprops=arrow, annotation_clip=False, zorder=6)
    ax.annotate("before", start, (-4, 0), zorder=6, **look)


def _sign(number: float) -> float:
    return math.copysign(1.0, number) if number else 0.0
