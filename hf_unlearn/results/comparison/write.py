"""Writes a comparison: one file of a kind that its suffix names, or a folder with all of them."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...errors import input_error
from ..files import atomic_write_text
from ..report.figures import save_plot
from ..schema import as_json
from .comparison import Comparison
from .formats import comparison_csv, comparison_latex, comparison_markdown, comparison_text, runs_csv, tests_csv
from .page import comparison_page
from .plane import plane_plot

_PLANE = ".png"


def comparison_data(comparison: Comparison) -> dict[str, Any]:
    """The comparison as JSON takes it, without scores of single rows; numbers that are not finite are words."""
    data: dict[str, Any] = as_json(comparison)
    for setting in data["settings"]:
        for method in setting["methods"]:
            for run in method["runs"]:
                run["results"] = {
                    model: {name: figure["value"] for name, figure in result["metrics"].items()}
                    for model, result in run["results"].items()
                }
    return data


# What a suffix stands for.
_TEXTS: dict[str, Callable[[Comparison], str]] = {
    ".txt": lambda comparison: comparison_text(comparison, 80) + "\n",
    ".md": comparison_markdown,
    ".csv": comparison_csv,
    ".tex": comparison_latex,
    ".html": comparison_page,
    ".json": lambda comparison: json.dumps(comparison_data(comparison), indent=2, allow_nan=False) + "\n",
}
_FOLDER = {
    "comparison.html": comparison_page,
    "comparison.md": comparison_markdown,
    "comparison.tex": comparison_latex,
    "comparison.csv": comparison_csv,
    "runs.csv": runs_csv,
    "tests.csv": tests_csv,
    "comparison.json": _TEXTS[".json"],
}


def write_comparison(comparison: Comparison, output: str | os.PathLike[str]) -> list[Path]:
    """Write a comparison.

    Args:
        comparison: of runs.
        output: a file whose suffix says what it is (.html, .md, .csv, .tex, .json, .txt, .png), or a folder, which
            gets comparison.html, .md, .tex, .csv and .json, runs.csv, tests.csv and plane.png.

    Returns:
        what was written, the page first.

    Raises:
        ValueError: a file of another kind, a folder where a file lies, or a PNG where there is nothing to draw.
    """
    target = Path(output)
    if target.suffix and not target.is_dir():
        if target.suffix == _PLANE:
            return _planes(comparison, target)
        if target.suffix in _TEXTS:
            return [atomic_write_text(target, _TEXTS[target.suffix](comparison))]
        raise _no_output(target, f"{target.name}, whose suffix stands for nothing that a comparison can be written as")
    if target.is_file():
        raise _no_output(target, f"{target.name}, which is a file without a suffix")
    written = [atomic_write_text(target / name, make(comparison)) for name, make in _FOLDER.items()]
    return [*written, *_planes(comparison, target / "plane.png", required=False)]


def _planes(comparison: Comparison, target: Path, *, required: bool = True) -> list[Path]:
    """The plane of each setting; those after the first have a number in their names."""
    written = []
    for number, setting in enumerate(comparison.settings, 1):
        plot = plane_plot(setting, target.stem if number == 1 else f"{target.stem}-{number}")
        written += [save_plot(plot, target.parent)] if plot is not None else []
    if required and not written:
        raise input_error(
            expected="runs of a suite with a pair of metrics, for a PNG",
            got="none with figures of what was forgotten and of what was kept",
            why="the plane is drawn of these two",
            fix="write the tables instead: --output comparison.html, or --format markdown",
        )
    return written


def _no_output(target: Path, got: str) -> ValueError:
    return input_error(
        expected=f"a folder, or a file that ends with one of {', '.join([*_TEXTS, _PLANE])}",
        got=got,
        why="the suffix says what the comparison is written as",
        fix=f"--output {target.stem or 'comparison'}.html, or a folder for all of it: --output {target.stem}",
    )
