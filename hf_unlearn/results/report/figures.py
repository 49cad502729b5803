"""Drawings as files and as SVG inside a page, from one drawing code. What is drawn, the caller knows.

Everything is drawn in the colours of the light scheme, each of which occurs once: in a page's SVG they are replaced by
the CSS variables of the same name, so that an inlined drawing follows the reader's colour scheme.
"""

import io
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Distinguishable with any colour vision (and by line style and marker besides), 4.5:1 or more on the page.
COLORS = {
    "ink": "#1d2329",
    "muted": "#59626d",
    "grid": "#dfe2e6",
    "paper": "#fefefe",
    "before": "#66707c",
    "after": "#0a62ad",
    "oracle": "#b34a05",
    "forget": "#9c2f78",
    "retain": "#0b7058",
    "holdout": "#6b5d00",
    "violet": "#5d3fb3",
}
_WIDTH, _HEIGHT = 300, 218  # of a panel, in units of a page's pixels
_DPI = 150
_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "hf_unlearn",
    "text.parse_math": False,
    "text.usetex": False,
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 11,
    "axes.edgecolor": COLORS["muted"],
    "axes.labelcolor": COLORS["muted"],
    "axes.titlecolor": COLORS["ink"],
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.formatter.useoffset": False,
    "grid.color": COLORS["grid"],
    "grid.linewidth": 0.8,
    "xtick.color": COLORS["muted"],
    "ytick.color": COLORS["muted"],
    "text.color": COLORS["ink"],
    "lines.linewidth": 1.8,
    "legend.frameon": False,
    "legend.fontsize": 11,
    "legend.handlelength": 1.8,
    "legend.columnspacing": 1.2,
    "legend.borderaxespad": 0.0,
    "legend.borderpad": 0.1,
    "figure.constrained_layout.w_pad": 0.08,
    "figure.constrained_layout.h_pad": 0.08,
}


@dataclass(frozen=True)
class Panel:
    """One drawing.

    Attributes:
        draw: draws it into matplotlib's axes.
        summary: what it shows, in words.
        scale: how much larger it is than others.
        height: how much higher.
        chart: makes what a page replaces it by where scripts run; None where it stays as it is.
    """

    draw: Callable[[Any], None]
    summary: str
    scale: float = 1.0
    height: float = 1.0
    chart: Callable[[], dict[str, Any]] | None = None


@dataclass(frozen=True)
class Plot:
    """Panels that belong together: `name` is that of its file, `caption` how to read it."""

    name: str
    title: str
    caption: str
    panels: Sequence[Panel]


def inline_svg(panel: Panel, prefix: str) -> str:
    """A panel as an <svg> for a page: colours and fonts of the page, ids that start with `prefix`."""
    with _style():
        figure = _figure([panel], 1)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata=_NO_METADATA)
    return _for_page(buffer.getvalue(), panel.summary, prefix)


def save_plot(plot: Plot, folder: Path) -> Path:
    """A plot as PNG and SVG, on white. Returns the path of the PNG."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{plot.name}.png"
    with _style():
        figure = _figure(plot.panels, min(len(plot.panels), 3 if len(plot.panels) % 2 else 2))
        figure.savefig(target, format="png", dpi=_DPI, facecolor="white", metadata={"Software": None})
        figure.set_layout_engine("none")  # it stays as it is laid out, which takes longer than drawing
        figure.savefig(target.with_suffix(".svg"), format="svg", facecolor="white", metadata=_NO_METADATA)
    return target


_NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))


@contextmanager
def _style() -> Iterator[None]:
    """matplotlib's own defaults and ours, whatever the user's matplotlibrc says, and the user's again afterwards."""
    import matplotlib

    defaults: Any = {name: matplotlib.rcParamsDefault[name] for name in matplotlib.rcParamsDefault if _ours(name)}
    with matplotlib.rc_context(defaults | _STYLE):
        yield


def _ours(name: str) -> bool:
    # Not the backend, nor what only windows have.
    return name.split(".")[0] not in ("backend", "backend_fallback", "interactive", "keymap", "toolbar", "webagg")


def _figure(panels: Sequence[Panel], columns: int) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = -(-len(panels) // columns)
    scale = max(panel.scale for panel in panels)
    height = scale * max(panel.height for panel in panels)
    size = (columns * scale * _WIDTH / 72, rows * height * _HEIGHT / 72)
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    for i, panel in enumerate(panels):
        panel.draw(figure.add_subplot(rows, columns, i + 1))
    return figure


def _for_page(svg: str, summary: str, prefix: str) -> str:
    svg = svg[svg.index("<svg") :]
    box = re.search(r'viewBox="([^"]+)"', svg)
    assert box is not None  # matplotlib writes it
    width = float(box.group(1).split()[2])
    opening = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="{box.group(1)}" '
        f'style="--width: {width:.0f}px" class="plot" role="img" aria-label="{_escaped(summary)}">'
    )
    body = svg[svg.index(">") + 1 :]
    # A page has one style for all: a <style> inside an SVG would hold for everything around it.
    body = re.sub(r"<metadata>.*?</metadata>|<style[^>]*>.*?</style>", "", body, flags=re.DOTALL)
    body = re.sub(r'<g id="[^"]*"', "<g", body)  # names of groups, which nothing refers to
    body = re.sub(r'(\bid="|xlink:href="#|url\(#)', rf"\g<1>{prefix}-", body)
    body = re.sub(r"font-family: [^;\"]+", "font-family: var(--sans)", body)
    for name, color in COLORS.items():
        body = body.replace(color, f"var(--{name})")
    return opening + body.strip()


def _escaped(text: str) -> str:
    from markupsafe import escape

    return str(escape(text))
