"""The drawings of a page as charts that answer to the pointer: data and layout as plotly.js takes them.

Each function takes the arguments of the drawing of the same name in `drawings.py` or `plane_drawing.py`, but for the
axes. A colour is the name of a variable of the page's style, "var(--after)", which report.js resolves. What all charts
share (fonts, grid, margins) stands there too; title and legend are text above the chart. Names come from users: those
that plotly draws are escaped, as it reads some HTML.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from markupsafe import escape

from .drawings import DECADES, Bar, Level, Line, cumulated, short_number
from .figures import Panel
from .plane_drawing import (
    Point,
    arrow_sides,
    arrow_words,
    ends,
    frame_of,
    method_look,
    shared_labels,
)

Chart = dict[str, Any]

_DASHES = {"before": "dash", "oracle": "dot", "retain": "dash", "holdout": "dashdot"}
_SYMBOLS = {"before": "square", "oracle": "diamond-open"}
_LEVEL_DASHES = ("dashdot", "dot")  # of the first level, and of others
_METHOD_SYMBOLS = ("circle", "triangle-up", "triangle-down", "cross")


def panel_of(
    draw: Callable[..., None],
    chart: Callable[..., Chart],
    summary: str,
    *,
    scale: float = 1.0,
    height: float = 1.0,
    **arguments: Any,
) -> Panel:
    """A panel that is drawn, and charted where scripts run, with the same arguments."""
    return Panel(partial(draw, **arguments), summary, scale, height, partial(chart, **arguments))


def lines_chart(title: str, lines: Sequence[Line], levels: Sequence[Level] = (), *, share: bool = False) -> Chart:
    """Values over optimizer steps."""
    form = ".1%" if share else ".4g"
    data = [_line(line, f"%{{y:{form}}}") for line in lines]
    if len(lines) == 1:
        data[0]["line"]["dash"] = "solid"  # nothing to be told from
    layout: Chart = {"hovermode": "x unified", "xaxis": {"title": {"text": "optimizer step"}}}
    layout["yaxis"] = {"range": [-0.03, 1.03], "tickformat": ".0%"} if share else {}
    return {"title": title, "legend": _legend(lines, levels), "data": data, "layout": layout | _levels(levels)}


def course_chart(title: str, unit: str, lines: Sequence[Line], levels: Sequence[Level] = ()) -> Chart:
    """Leaks over what an attack varies."""
    values = sorted({x for line in lines for x, _ in line.points})
    powers = values[-1] > DECADES * max(1.0, values[0]) and values[0] >= 0
    data = []
    for line in lines:
        traced = _line(line, f"{_plain(unit)} %{{customdata}}: %{{y:.3f}}")
        traced["customdata"] = [f"{x:g}" for x, _ in line.points]
        # plotly has no axis that counts in powers and has a zero.
        traced["x"] = [_place(x, powers) for x, _ in line.points]
        traced["mode"] = "lines+markers"
        crossed = {x for x, _ in line.crossed}
        symbols = ["x" if x in crossed else "circle" for x, _ in line.points]
        traced["marker"] = {"color": _color(line.kind), "symbol": symbols, "size": 6}
        data.append(traced)
    most = max([y for line in lines for _, y in line.points] + [level.high for level in levels])
    axis: Chart = {"title": {"text": _plain(unit)}}
    if powers:
        shown = [0.0, *(10.0**n for n in range(0, 10, 2) if 10.0**n <= values[-1])] if values[0] == 0 else values
        axis |= {"tickvals": [_place(x, True) for x in shown], "ticktext": [short_number(x) for x in shown]}
    layout: Chart = {"hovermode": "closest", "xaxis": axis}
    layout["yaxis"] = {"range": [0, _number(max(0.1, 1.06 * most))]}
    return {"title": title, "legend": _legend(lines, levels), "data": data, "layout": layout | _levels(levels)}


def bars_chart(bars: Sequence[Bar], unit: str) -> Chart:
    """Values with intervals, a bar each, the first on top."""
    arms = {
        "type": "data",
        "symmetric": False,
        "array": [_number(max(0.0, bar.high - bar.value)) for bar in bars],
        "arrayminus": [_number(max(0.0, bar.value - bar.low)) for bar in bars],
        "color": _color("ink"),
        "thickness": 1.2,
        "width": 4,
    }
    trace = {
        "type": "bar",
        "orientation": "h",
        "y": [_plain(bar.label) for bar in bars],
        "x": [_number(bar.value) for bar in bars],
        "customdata": [f"{bar.low:.3f}, {bar.high:.3f}" for bar in bars],
        "hovertemplate": "%{y}: %{x:.3f} [%{customdata}]<extra></extra>",
        "marker": {"color": _color("after"), "opacity": 0.55},
        "error_x": arms,
        "width": 0.55,
    }
    layout = {
        "hovermode": "closest",
        "xaxis": {"title": {"text": _plain(unit)}, "zeroline": True},
        "yaxis": {"autorange": "reversed", "showgrid": False},
    }
    return {"title": "", "legend": [], "data": [trace], "layout": layout}


def shares_chart(title: str, unit: str, rows: Mapping[str, Sequence[float]], most: float) -> Chart:
    """For each model the share of rows whose value is at most x."""
    data = []
    for name, values in rows.items():
        pairs = cumulated(values, most)
        trace = {
            "mode": "lines",
            "line": {"color": _color(name), "dash": _DASHES.get(name, "solid"), "shape": "hv", "width": 2},
            "x": [_number(x) for x, _ in pairs],
            "y": [_number(y) for _, y in pairs],
            "hovertemplate": f"{name}: %{{y:.0%}} of rows at most %{{x:.3f}}<extra></extra>",
        }
        data.append(trace)
    legend = [{"name": name, "look": {"color": _color(name), "dash": _DASHES.get(name, "solid")}} for name in rows]
    layout = {
        "hovermode": "closest",
        "xaxis": {"title": {"text": _plain(unit)}, "range": [_number(-0.02 * most), _number(1.04 * most)]},
        "yaxis": {"title": {"text": "share of rows"}, "range": [-0.03, 1.03], "tickformat": ".0%"},
    }
    return {"title": title, "legend": legend, "data": data, "layout": layout}


def plane_chart(points: Sequence[Point], shares: Sequence[bool], labels: tuple[str, str]) -> Chart:
    """Models by forget metric (x) and utility (y)."""
    frame, look = frame_of(points), method_look(points)
    legend: dict[str, Chart] = {}
    data = []
    for point in (point for point in points if point not in frame.outside):
        color, number = look[point.method] if point.kind == "after" else (point.kind, 0)
        symbol = _SYMBOLS.get(point.kind, _METHOD_SYMBOLS[number])
        # Of points at one place only the last can be pointed at.
        names = [other.name or other.kind for other in points if _same_place(other, point)]
        data.append(_point(point, color, symbol, _hover(", ".join(names), point, shares, labels)))
        legend[point.method if point.kind == "after" else point.kind] = {"color": _color(color), "symbol": symbol}
    notes: list[Chart] = [
        {"x": _number(x), "y": _number(y), "text": f"<b>{_plain(text)}</b>", "showarrow": False, "xanchor": "left",
         "xshift": 6, "font": {"color": _color("ink")}}
        for x, y, text in shared_labels([point for point in points if point.label], frame)
    ]  # fmt: skip
    for point in frame.outside:
        tail, head = frame.arrow(point, [aim for aim in points if aim.kind == "after"])
        across, up = arrow_sides(frame, tail, head)
        line: Chart = dict(zip(("ax", "ay", "x", "y"), map(_number, (*tail, *head)), strict=True))
        line |= {"axref": "x", "ayref": "y", "arrowcolor": _color("before"), "arrowwidth": 1.8, "arrowhead": 2}
        words: Chart = {"x": line["ax"], "y": line["ay"], "text": arrow_words(point, shares), "showarrow": False}
        words |= {"xanchor": "right" if across > 0 else "left", "yanchor": ("bottom", "middle", "top")[up + 1]}
        words |= {"xshift": 0 if up else -8 * across, "yshift": -6 * up, "font": {"color": _color("before")}}
        notes += [{"text": ""} | line, words | {"hovertext": _hover(point.kind, point, shares, labels)}]
    axes = [
        {"title": {"text": f"{_plain(label)}<br>({aim})"}, "range": [*map(_number, limits)]}
        | ({"tickformat": ".0%"} if in_percent else {})
        for label, aim, limits, in_percent in zip(
            labels, ("left: more forgotten", "up: more kept"), (frame.x, frame.y), shares, strict=True
        )
    ]
    layout = {"hovermode": "closest", "annotations": notes, "xaxis": axes[0], "yaxis": axes[1]}
    # The oracle, which all are compared with, comes last.
    order = sorted(legend, key=lambda name: name == "oracle")
    named = [{"name": name, "look": legend[name]} for name in order]
    return {"title": "", "legend": named, "data": data, "layout": layout}


def _same_place(one: Point, other: Point) -> bool:
    return one.kind == other.kind and one.x == other.x and one.y == other.y


def _point(point: Point, color: str, symbol: str, hover: str) -> Chart:
    arms = {}
    for side, result in (("error_x", point.x), ("error_y", point.y)):
        low, high = ends(result)
        more, less = _number(max(0.0, high - result.value)), _number(max(0.0, result.value - low))
        arms[side] = {"type": "data", "symmetric": False, "array": [more], "arrayminus": [less], "thickness": 1.2}
    aim = point.kind == "oracle"
    return {
        "mode": "markers",
        "x": [_number(point.x.value)],
        "y": [_number(point.y.value)],
        "text": [hover],
        "hovertemplate": "%{text}<extra></extra>",
        "marker": {
            "color": _color(color),
            "symbol": symbol,
            "size": 13 if aim else 10,
            "line": {"width": 2 if aim else 1, "color": _color(color if aim else "paper")},
        },
        **arms,
    }


def _hover(name: str, point: Point, shares: Sequence[bool], labels: tuple[str, str]) -> str:
    """What is said of a model that is pointed at: its name, and both metrics with their intervals."""
    lines = [f"<b>{_plain(name)}</b>"]
    for label, result, in_percent in zip(labels, (point.x, point.y), shares, strict=True):
        low, high = ends(result)
        scale, unit = (100, "%") if in_percent else (1, "")
        interval = "" if low == high == result.value else f" [{scale * low:.3g}, {scale * high:.3g}]"
        lines.append(f"{_plain(label)}: {scale * result.value:.3g}{unit}{interval}")
    return "<br>".join(lines)


def _line(line: Line, hover: str) -> Chart:
    return {
        "mode": "lines+markers" if len(line.points) < 3 else "lines",
        "line": {"color": _color(line.kind), "dash": _dash(line), "width": 2},
        "x": [_number(x) for x, _ in line.points],
        "y": [_number(y) for _, y in line.points],
        "hovertemplate": hover + (f"<extra>{_plain(line.label)}</extra>" if line.label != "_" else "<extra></extra>"),
    }


def _levels(levels: Sequence[Level]) -> Chart:
    """Lines and bands across the whole width, each with its name."""
    shapes = []
    for i, level in enumerate(levels):
        is_line = level.low == level.high
        shape: Chart = {"type": "line" if is_line else "rect", "xref": "paper", "x0": 0, "x1": 1, "layer": "below"}
        shape |= {"y0": _number(level.low), "y1": _number(level.high)}
        color, dash = _color("muted"), _LEVEL_DASHES[i > 0]
        if is_line:
            shape["line"] = {"color": color, "dash": dash, "width": 1.4}
        else:
            shape |= {"fillcolor": color, "opacity": 0.18, "line": {"width": 0}}
        shapes.append(shape)
    return {"shapes": shapes} if shapes else {}


def _legend(lines: Sequence[Line], levels: Sequence[Level]) -> list[Chart]:
    """Name and look of what is drawn; a single line is named by the title."""
    named: list[tuple[str, Chart]] = [
        (line.label, {"color": _color(line.kind), "dash": _dash(line)}) for line in lines if line.label != "_"
    ]
    for i, level in enumerate(levels):
        look: Chart = {"dash": _LEVEL_DASHES[i > 0]} if level.low == level.high else {"band": True}
        named.append((level.label, {"color": _color("muted")} | look))
    return [{"name": name, "look": look} for name, look in named]


def _dash(line: Line) -> str:
    return _DASHES.get(line.kind, "solid") if line.dashes is None else "dashdot"


def _place(x: float, powers: bool) -> float:
    return _number(math.log10(1.0 + x) if powers else x)


def _color(name: str) -> str:
    return f"var(--{name})"


def _number(value: float) -> float:
    """Six digits: more are not seen, and a page holds thousands of numbers."""
    return float(f"{value:.6g}")


def _plain(text: str) -> str:
    """A text of which nothing is read as HTML, nor as one of plotly's own patterns."""
    return str(escape(text)).replace("&#39;", "'").replace("&#34;", '"').replace("%{", "%\u200b{")
