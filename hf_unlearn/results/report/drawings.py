"""Drawing into matplotlib's axes: lines over steps, cumulated shares of rows, points with intervals.

Numbers in, ink out: what they are and how they are to be read is said elsewhere.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...metrics import MetricResult
from .figures import COLORS

_DASHES: dict[str, Any] = {
    "before": (0, (5, 2)),
    "after": "solid",
    "oracle": (0, (1.2, 1.4)),
    "forget": "solid",
    "retain": (0, (5, 2)),
    "holdout": (0, (1.2, 1.4)),
}
_MARKERS = {"before": "s", "after": "o", "oracle": "D"}
_MOST_POINTS = 400
_DECADES = 200.0  # largest value by the smallest, from which on an axis counts in powers
_FEW_TICKS = 5
_CLOSE = 0.045  # of the axis: points nearer to each other than this share one label


@dataclass(frozen=True)
class Line:
    """Values over steps, some crossed out; `kind` is a key of COLORS, and has the `dashes` where they are None."""

    label: str
    kind: str
    points: Sequence[tuple[float, float]]
    dashes: Any = None
    crossed: Sequence[tuple[float, float]] = ()


@dataclass(frozen=True)
class Level:
    """A horizontal line, or a band where its ends differ."""

    label: str
    low: float
    high: float


@dataclass(frozen=True)
class Bar:
    """A value with its interval."""

    label: str
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Point:
    """A model in the plane of two metrics; `kind` is a key of _MARKERS."""

    kind: str
    label: str
    x: MetricResult
    y: MetricResult


def draw_lines(
    ax: Any, title: str, lines: Sequence[Line], levels: Sequence[Level] = (), *, share: bool = False
) -> None:
    """Values over optimizer steps."""
    for line in lines:
        marker = "o" if len(line.points) < 3 else None
        steps, values = zip(*line.points, strict=True)
        dashes = line.dashes or _DASHES[line.kind]
        ax.plot(steps, values, color=COLORS[line.kind], ls=dashes, marker=marker, ms=4, label=line.label)
    for i, level in enumerate(levels):
        dashes = (0, (6, 2, 1, 2)) if i == 0 else (0, (1.2, 1.4))
        if level.low == level.high:
            ax.axhline(level.low, color=COLORS["muted"], ls=dashes, lw=1.3, label=level.label)
        else:
            ax.axhspan(level.low, level.high, color=COLORS["muted"], alpha=0.18, lw=0, label=level.label)
    ax.set_xlabel("optimizer step")
    ax.xaxis.get_major_locator().set_params(integer=True, nbins=6)
    if share:
        ax.set_ylim(-0.03, 1.03)
        _percent(ax.yaxis)
    _titled(ax, title)


def draw_course(ax: Any, title: str, unit: str, lines: Sequence[Line], levels: Sequence[Level] = ()) -> None:
    """Leaks over what an attack varies, in steps, bits, queries or the like."""
    draw_lines(ax, title, lines, levels)
    for line in lines:
        for x, y in line.crossed:
            ax.plot([x], [y], "x", color=COLORS[line.kind], ms=7, mew=1.8)
    values = sorted({x for line in lines for x, _ in line.points})
    if values[-1] > _DECADES * max(1.0, values[0]) and values[0] >= 0:
        ax.set_xscale("symlog", linthresh=1.0)
        ax.minorticks_off()
        ax.xaxis.set_major_formatter(lambda x, _: _short(x))  # matplotlib's own powers need its mathematical text
    elif len(values) <= _FEW_TICKS:
        ax.set_xticks(values, [f"{x:g}" for x in values])
    else:
        ax.xaxis.get_major_locator().set_params(integer=all(x == int(x) for x in values), nbins=6)
    ax.set_xlabel(unit)
    # From 0, so that a small leak does not look like a large one.
    ax.set_ylim(
        0.0, max(0.1, 1.06 * max([y for line in lines for _, y in line.points] + [level.high for level in levels]))
    )


def _short(x: float) -> str:
    """1, 100, 10k, 1M."""
    scale, letter = next(((s, unit) for s, unit in ((1e6, "M"), (1e3, "k")) if abs(x) >= s), (1.0, ""))
    return f"{x / scale:g}{letter}"


def draw_bars(ax: Any, bars: Sequence[Bar], unit: str) -> None:
    """Values with intervals, a bar each, the first on top."""
    places = list(range(len(bars)))
    values = [bar.value for bar in bars]
    arms = [[max(0.0, bar.value - bar.low) for bar in bars], [max(0.0, bar.high - bar.value) for bar in bars]]
    ax.barh(places, values, height=0.55, color=COLORS["after"], alpha=0.55, lw=0)
    look: dict[str, Any] = dict(fmt="o", ms=4, color=COLORS["ink"], lw=1.2, capsize=3)
    ax.errorbar(values, places, xerr=arms, **look)
    ax.axvline(0.0, color=COLORS["muted"], lw=1.0)
    ax.set_yticks(places, [bar.label for bar in bars])
    ax.set_ylim(len(bars) - 0.4, -0.6)
    ax.grid(visible=False, axis="y")
    ax.set_xlabel(unit)


def draw_shares(ax: Any, title: str, unit: str, rows: Mapping[str, Sequence[float]], most: float) -> None:
    """For each model the share of rows whose value is at most x; `most` is the largest value of all panels."""
    for name, values in rows.items():
        ordered = sorted(values)
        pairs = [(value, (i + 1) / len(ordered)) for i, value in enumerate(ordered)]
        pairs = [(0.0, 0.0), (ordered[0], 0.0), *_thinned(pairs), (most * 1.04, 1.0)]
        xs, ys = zip(*pairs, strict=True)
        ax.plot(xs, ys, drawstyle="steps-post", color=COLORS[name], ls=_DASHES[name], label=name)
    ax.set_xlim(-0.02 * most, most * 1.04)
    ax.set_ylim(-0.03, 1.03)
    ax.set_xlabel(unit)
    ax.set_ylabel("share of rows")
    _percent(ax.yaxis)
    _titled(ax, title)


def draw_plane(ax: Any, points: Sequence[Point], shares: Sequence[bool], labels: tuple[str, str]) -> None:
    """Models by forget metric (x) and utility (y), intervals as error bars; points that lie together share a label."""
    shown = set()
    for point in points:
        color = COLORS[point.kind]
        # Only the first of a kind stands in the legend.
        label = "_" if point.kind in shown else point.kind
        shown.add(point.kind)
        ax.errorbar(
            [point.x.value], [point.y.value], xerr=_arms(point.x), yerr=_arms(point.y), color=color, fmt="none",
            lw=1.2, alpha=0.75,
        )  # fmt: skip
        # What unlearning aims at is a ring, so that a model that has reached it is seen within.
        aim = point.kind == "oracle"
        look: dict[str, Any] = dict(ms=12, mfc="none", mec=color, mew=1.8) if aim else dict(ms=8, mec=COLORS["paper"])
        ax.plot(
            [point.x.value],
            [point.y.value],
            _MARKERS[point.kind],
            color=color,
            label=label,
            zorder=4 if aim else 5,
            **look,
        )
    _plane_limits(ax, points)
    for x, y, text in _shared_labels(ax, [point for point in points if point.label]):
        backing = dict(facecolor=COLORS["paper"], edgecolor="none", pad=1.5, alpha=0.85)
        ax.annotate(
            text, (x, y), (5, 0), textcoords="offset points", va="center", weight="bold", zorder=6, bbox=backing,
        )  # fmt: skip
    ax.set_xlabel(f"{labels[0]}\n(left: more forgotten)")
    ax.set_ylabel(f"{labels[1]}\n(up: more kept)")
    for axis, in_percent in zip((ax.xaxis, ax.yaxis), shares, strict=True):
        if in_percent:
            _percent(axis)
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1.02), ncols=3)


def _titled(ax: Any, title: str) -> None:
    handles, labels = ax.get_legend_handles_labels()
    # Two columns at most, so that the words of a legend keep their size on a phone.
    columns = 3 if sum(map(len, labels)) < 26 else 2
    rows = -(-len(handles) // columns)
    ax.set_title(title, pad=6 + 16 * rows)
    if handles:
        ax.legend(loc="lower left", bbox_to_anchor=(0, 1.02), ncols=columns)


def _percent(axis: Any) -> None:
    from matplotlib.ticker import PercentFormatter

    axis.set_major_formatter(PercentFormatter(1.0, decimals=0))


def _thinned(pairs: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most _MOST_POINTS of them, first and last included: a page need not hold each of ten thousand rows."""
    if len(pairs) <= _MOST_POINTS:
        return pairs
    return [pairs[round(i * (len(pairs) - 1) / (_MOST_POINTS - 1))] for i in range(_MOST_POINTS)]


def ends(result: MetricResult) -> tuple[float, float]:
    """The interval, or the value twice where there is none."""
    limits = (result.low, result.high)
    if any(end is None or not math.isfinite(end) for end in limits):
        return result.value, result.value
    return float(limits[0] or 0.0), float(limits[1] or 0.0)


def _arms(result: MetricResult) -> Any:
    low, high = ends(result)
    return [[max(0.0, result.value - low)], [max(0.0, high - result.value)]]


def _plane_limits(ax: Any, points: Sequence[Point]) -> None:
    (x_low, x_high), (y_low, y_high) = (
        (min(low for low, _ in spans), max(high for _, high in spans))
        for spans in ([ends(point.x) for point in points], [ends(point.y) for point in points])
    )
    # At least 20 points of a percentage (or 0.2) high and wide, so that noise does not look like a difference.
    x_low, x_high = min(0.0, x_low), max(x_high, x_low + 0.2)
    y_low = min(y_low, y_high - 0.2)
    x_pad, y_pad = 0.04 * (x_high - x_low), 0.06 * (y_high - y_low)
    ax.set_xlim(x_low - x_pad, x_high + 3 * x_pad)
    ax.set_ylim(y_low - y_pad, y_high + 1.5 * y_pad)


def _shared_labels(ax: Any, points: Sequence[Point]) -> list[tuple[float, float, str]]:
    (x_low, x_high), (y_low, y_high) = ax.get_xlim(), ax.get_ylim()
    groups: list[list[Point]] = []
    for point in points:
        near = [
            group
            for group in groups
            if abs(group[0].x.value - point.x.value) < _CLOSE * (x_high - x_low)
            and abs(group[0].y.value - point.y.value) < _CLOSE * (y_high - y_low)
        ]
        if near:
            near[0].append(point)
        else:
            groups.append([point])
    # To the right of the error bars, which would cross it elsewhere.
    return [
        (
            max([ends(point.x)[1] for point in group] + [point.x.value + 0.02 * (x_high - x_low) for point in group]),
            sum(point.y.value for point in group) / len(group),
            ", ".join(point.label for point in group),
        )
        for group in groups
    ]
