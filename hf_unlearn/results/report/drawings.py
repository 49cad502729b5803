"""Drawing into matplotlib's axes: lines over steps, cumulated shares of rows, bars with intervals.

Numbers in, ink out: what they are and how they are to be read is said elsewhere.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .figures import COLORS

_DASHES: dict[str, Any] = {
    "before": (0, (5, 2)),
    "after": "solid",
    "oracle": (0, (1.2, 1.4)),
    "forget": "solid",
    "retain": (0, (5, 2)),
    "holdout": (0, (1.2, 1.4)),
}
_MOST_POINTS = 400
DECADES = 200.0  # largest value by the smallest, from which on an axis counts in powers
_FEW_TICKS = 5


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
    if values[-1] > DECADES * max(1.0, values[0]) and values[0] >= 0:
        ax.set_xscale("symlog", linthresh=1.0)
        ax.minorticks_off()
        # matplotlib's own powers need its mathematical text.
        ax.xaxis.set_major_formatter(lambda x, _: short_number(x))
    elif len(values) <= _FEW_TICKS:
        ax.set_xticks(values, [f"{x:g}" for x in values])
    else:
        ax.xaxis.get_major_locator().set_params(integer=all(x == int(x) for x in values), nbins=6)
    ax.set_xlabel(unit)
    # From 0, so that a small leak does not look like a large one.
    ax.set_ylim(
        0.0, max(0.1, 1.06 * max([y for line in lines for _, y in line.points] + [level.high for level in levels]))
    )


def short_number(x: float) -> str:
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
        xs, ys = zip(*cumulated(values, most), strict=True)
        ax.plot(xs, ys, drawstyle="steps-post", color=COLORS[name], ls=_DASHES[name], label=name)
    ax.set_xlim(-0.02 * most, most * 1.04)
    ax.set_ylim(-0.03, 1.03)
    ax.set_xlabel(unit)
    ax.set_ylabel("share of rows")
    _percent(ax.yaxis)
    _titled(ax, title)


def cumulated(values: Sequence[float], most: float) -> list[tuple[float, float]]:
    """(x, share of the values that are at most x), from 0 to a little more than `most`."""
    ordered = sorted(values)
    pairs = [(value, (i + 1) / len(ordered)) for i, value in enumerate(ordered)]
    return [(0.0, 0.0), (ordered[0], 0.0), *_thinned(pairs), (most * 1.04, 1.0)]


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
