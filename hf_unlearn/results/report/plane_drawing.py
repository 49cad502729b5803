"""The plane of two metrics, drawn by matplotlib: a point a model, cropped to where unlearning should lead.

Numbers in, ink out: which models there are and how the plane is to be read is said elsewhere.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from textwrap import shorten
from typing import Any

from ...metrics import MetricResult
from .figures import COLORS

# Colours of methods, in order; after the last the first comes again with another mark.
METHOD_COLORS = ("after", "forget", "retain", "holdout", "violet")
_MARKERS = {"before": "s", "oracle": "D"}
_METHOD_MARKERS = ("o", "^", "v", "P")
_CLOSE = 0.045  # of the axis: points nearer to each other than this share one label
_LEAST = 0.1  # height and width of a plane, in the metrics' units: noise must not look like a difference
_ARROW = 0.25  # of the way from the border to where it points
_LONGEST = 40  # characters of a name in the legend, which must leave room for the plane
_FAR = 1.6  # times that the model before would stretch an axis, from which on it stays outside


@dataclass(frozen=True)
class Point:
    """A model in the plane of two metrics.

    Attributes:
        kind: "before", "after" or "oracle".
        label: what stands beside it; "" for nothing.
        x: forget metric.
        y: utility.
        name: what it is called when it is pointed at.
        method: what the legend calls a model after unlearning.
    """

    kind: str
    label: str
    x: MetricResult
    y: MetricResult
    name: str = ""
    method: str = "after"


@dataclass(frozen=True)
class Frame:
    """What of the plane is shown: limits of both axes, and the points that lie far outside."""

    x: tuple[float, float]
    y: tuple[float, float]
    outside: tuple[Point, ...]

    def arrow(self, point: Point, aims: Sequence[Point]) -> tuple[tuple[float, float], tuple[float, float]]:
        """Tail and head of an arrow that comes in from a point outside towards others, in the units of the axes."""
        ends = []
        for share in (0.0, _ARROW):
            place = []
            for limits, start, aim in zip((self.x, self.y), _place([point]), _place(aims), strict=True):
                span = limits[1] - limits[0]
                # At the border of the frame, or where the point lies along it.
                tail = min(max(start, limits[0] + 0.03 * span), limits[1] - 0.03 * span)
                place.append(tail + share * (aim - tail))
            ends.append((place[0], place[1]))
        return ends[0], ends[1]


def frame_of(points: Sequence[Point]) -> Frame:
    """The frame about models after unlearning and oracles; models before are within it where that costs little."""
    near = [point for point in points if point.kind != "before"] or list(points)
    x, y = _limits(near)
    far = []
    for point in points:
        if point.kind == "before":
            wide_x, wide_y = _limits([*near, point])
            if _span(wide_x) > _FAR * _span(x) or _span(wide_y) > _FAR * _span(y):
                far.append(point)
            else:
                near.append(point)
    x, y = _limits(near)
    x_pad, y_pad = 0.06 * _span(x), 0.07 * _span(y)
    # More room to the right and above, where labels and the ends of intervals are.
    return Frame((x[0] - x_pad, x[1] + 2 * x_pad), (y[0] - y_pad, y[1] + 1.5 * y_pad), tuple(far))


def method_look(points: Sequence[Point]) -> Mapping[str, tuple[str, int]]:
    """Colour and number of the mark of each method, in the order of the points."""
    methods = dict.fromkeys(point.method for point in points if point.kind == "after")
    size = len(METHOD_COLORS)
    return {method: (METHOD_COLORS[i % size], i // size % len(_METHOD_MARKERS)) for i, method in enumerate(methods)}


def draw_plane(ax: Any, points: Sequence[Point], shares: Sequence[bool], labels: tuple[str, str]) -> None:
    """Models by forget metric (x) and utility (y), intervals as error bars; points that lie together share a label."""
    frame, look = frame_of(points), method_look(points)
    shown: set[str] = set()
    for point in (point for point in points if point not in frame.outside):
        color, number = look[point.method] if point.kind == "after" else (point.kind, 0)
        name = point.method if point.kind == "after" else point.kind
        # Only the first of a name stands in the legend.
        _draw_point(ax, point, color, number, "_" if name in shown else shorten(name, _LONGEST, placeholder=" ..."))
        shown.add(name)
    ax.set_xlim(*frame.x)
    ax.set_ylim(*frame.y)
    for point in frame.outside:
        _draw_arrow(ax, frame, point, shares, [aim for aim in points if aim.kind == "after"])
    for x, y, text in shared_labels([point for point in points if point.label], frame):
        backing = dict(facecolor=COLORS["paper"], edgecolor="none", pad=1.5, alpha=0.85)
        ax.annotate(
            text, (x, y), (5, 0), textcoords="offset points", va="center", weight="bold", zorder=6, bbox=backing,
        )  # fmt: skip
    ax.set_xlabel(f"{labels[0]}\n(left: more forgotten)")
    ax.set_ylabel(f"{labels[1]}\n(up: more kept)")
    from matplotlib.ticker import PercentFormatter

    for axis, in_percent in zip((ax.xaxis, ax.yaxis), shares, strict=True):
        if in_percent:
            axis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    columns = 3 if sum(map(len, shown)) < 26 else 2
    # The oracle, which all are compared with, comes last.
    handles, names = ax.get_legend_handles_labels()
    entries = sorted(zip(handles, names, strict=True), key=lambda entry: entry[1] == "oracle")
    handles, names = zip(*entries, strict=True) if entries else ((), ())
    ax.legend(handles, names, loc="lower left", bbox_to_anchor=(0, 1.02), ncols=columns)


def _draw_point(ax: Any, point: Point, color: str, number: int, label: str) -> None:
    arms = {"xerr": _arms(point.x), "yerr": _arms(point.y)}
    place = [point.x.value], [point.y.value]
    ax.errorbar(*place, **arms, color=COLORS[color], fmt="none", lw=1.2, alpha=0.75)
    # What unlearning aims at is a ring, so that a model that has reached it is seen within.
    aim = point.kind == "oracle"
    marker = _MARKERS.get(point.kind, _METHOD_MARKERS[number])
    look: dict[str, Any] = dict(ms=12, mfc="none", mec=COLORS[color], mew=1.8)
    if not aim:
        look = dict(ms=8, mec=COLORS["paper"])
    ax.plot(*place, marker, color=COLORS[color], label=label, zorder=4 if aim else 5, **look)


def _draw_arrow(ax: Any, frame: Frame, point: Point, shares: Sequence[bool], aims: Sequence[Point]) -> None:
    tail, head = frame.arrow(point, aims)
    look = dict(arrowstyle="-|>", color=COLORS["before"], lw=1.6, shrinkA=0, shrinkB=0)
    ax.annotate("", head, tail, arrowprops=look, zorder=3)
    across, up = arrow_sides(frame, tail, head)
    align: dict[str, Any] = dict(ha="right" if across > 0 else "left", va=("bottom", "center", "top")[up + 1])
    words, shift = arrow_words(point, shares), (0 if up else -8 * across, -7 * up)
    ax.annotate(words, tail, shift, textcoords="offset points", color=COLORS["before"], **align)


def arrow_sides(frame: Frame, tail: tuple[float, float], head: tuple[float, float]) -> tuple[int, int]:
    """Where an arrow's tail lies, which its words are to keep clear of: right (1) or left, above (1) or below.

    0 in place of above and below where the arrow is steep: words stand beside it then.
    """
    across = 1 if tail[0] > 0.5 * sum(frame.x) else -1
    steep = abs(head[1] - tail[1]) / _span(frame.y) > abs(head[0] - tail[0]) / _span(frame.x)
    return across, 0 if steep else 1 if tail[1] > 0.5 * sum(frame.y) else -1


def arrow_words(point: Point, shares: Sequence[bool]) -> str:
    """What an arrow from a point outside says: "before: 100%, 99%"."""
    values = [
        f"{100 * value:.3g}%" if in_percent else f"{value:.3g}"
        for value, in_percent in zip((point.x.value, point.y.value), shares, strict=True)
    ]
    return f"{point.kind}: {', '.join(values)}"


def ends(result: MetricResult) -> tuple[float, float]:
    """The interval, or the value twice where there is none."""
    limits = (result.low, result.high)
    if any(end is None or not math.isfinite(end) for end in limits):
        return result.value, result.value
    return float(limits[0] or 0.0), float(limits[1] or 0.0)


def shared_labels(points: Sequence[Point], frame: Frame) -> list[tuple[float, float, str]]:
    """Place and text of the points' labels: right of the error bars, one for points that lie together."""
    x_span, y_span = _span(frame.x), _span(frame.y)
    groups: list[list[Point]] = []
    for point in points:
        near = [
            group
            for group in groups
            if abs(group[0].x.value - point.x.value) < _CLOSE * x_span
            and abs(group[0].y.value - point.y.value) < _CLOSE * y_span
        ]
        if near:
            near[0].append(point)
        else:
            groups.append([point])
    return [
        (
            max([ends(point.x)[1] for point in group] + [point.x.value + 0.02 * x_span for point in group]),
            sum(point.y.value for point in group) / len(group),
            ", ".join(point.label for point in group),
        )
        for group in groups
    ]


def _limits(points: Sequence[Point]) -> tuple[tuple[float, float], tuple[float, float]]:
    (x_low, x_high), (y_low, y_high) = (
        (min(low for low, _ in spans), max(high for _, high in spans))
        for spans in ([ends(point.x) for point in points], [ends(point.y) for point in points])
    )
    # Wider to the right, where more is left, and further down, where less is kept: the good corner stays in its place.
    return (x_low, max(x_high, x_low + _LEAST)), (min(y_low, y_high - _LEAST), y_high)


def _place(points: Sequence[Point]) -> tuple[float, float]:
    """The mean of points."""
    return fmean(point.x.value for point in points), fmean(point.y.value for point in points)


def _span(limits: tuple[float, float]) -> float:
    return limits[1] - limits[0]


def _arms(result: MetricResult) -> Any:
    low, high = ends(result)
    return [[max(0.0, result.value - low)], [max(0.0, high - result.value)]]
