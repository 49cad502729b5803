"""The page of a report: runs in, one HTML file out that loads nothing from elsewhere.

The same folders give the same bytes: no time, no path, no random id stands in the page.
"""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ...errors import input_error
from ..evaluation_result import EvaluationResult
from ..files import atomic_write_text
from ..table import TableRow, label_of, table_rows
from ..verdict import (
    MODELS,
    Verdict,
    membership,
    oracle_words,
    settings_words,
    side_by_side,
    verdict,
    verdict_rules,
)
from .attack_facts import AttackFacts, attack_facts
from .attack_plots import courses_plot, excess_plot
from .drawings import ends
from .facts import Facts, facts_of, training_time
from .figures import Plot, inline_svg
from .plots import distributions, losses, plane, plane_caption
from .read import Run, mismatches, read_run

_TEMPLATE = "report.html.jinja"


@dataclass(frozen=True)
class Figure:
    """A plot as the page has it."""

    title: str
    caption: str
    wide: bool
    drawings: list[Markup]


@dataclass(frozen=True)
class Planes:
    """The planes of several runs by suite, side by side under one caption."""

    drawings: dict[str, Markup]
    caption: str


@dataclass(frozen=True)
class Bar:
    """A model's value with its interval, in percent of the width of a track from 0 to 1."""

    model: str
    words: str
    value: float
    low: float
    width: float


@dataclass(frozen=True)
class Section:
    """What the page shows of a run."""

    number: int
    run: Run
    title: str
    verdict: Verdict
    warnings: list[str]
    bars: dict[str, list[Bar]]
    models: list[str]
    headline: list[TableRow]
    everything: list[TableRow]
    suite: str
    evaluated: EvaluationResult | None
    figures: dict[str, Figure | None]
    facts: Facts
    attacks: AttackFacts | None

    @property
    def anchor(self) -> str:
        """Of the section."""
        return f"run-{self.number}"

    @property
    def attacked(self) -> list[str]:
        """What the suite tried of its own accord that others would call attacks, a sentence each."""
        result = self.run.record.evaluations.get("after")
        attack, sentences = membership(side_by_side(self.run.record.evaluations)), []
        if attack is not None:
            sentences.append(f"{attack.words[0].upper()}{attack.words[1:]}.")
        if result is not None and any(name.startswith("in_scope_") for name in result.metrics):
            sentences.append("The suite itself asked for other wordings; the figures are among its metrics.")
        return sentences

    @property
    def oracle(self) -> str:
        """What it is, as the end of a sentence."""
        return oracle_words(self.run.record)

    @property
    def settings(self) -> str:
        """How the answers were made and judged, in a sentence."""
        return "" if self.evaluated is None else settings_words(self.evaluated.settings)

    @property
    def suite_words(self) -> str:
        """The suite's name, with the package that it comes from where that is another one."""
        package = "" if self.evaluated is None else self.evaluated.package
        return f"{self.suite} ({package})" if package else self.suite

    @property
    def seconds(self) -> str:
        """Of the training, as words."""
        return training_time(self.run.record) or "-"


def write_report(folders: Sequence[str | os.PathLike[str]], output: str | os.PathLike[str]) -> Path:
    """One HTML page of one or several runs.

    Args:
        folders: of the runs, each with a results.json.
        output: the file to write; its folder is made where it is missing.

    Returns:
        the path of the page.

    Raises:
        ValueError: no folders, a folder without a run, or an output that is a folder.
    """
    named = [folders] if isinstance(folders, str | os.PathLike) else list(folders)
    target = Path(output)
    if not named:
        raise _no_folders()
    if target.is_dir():
        raise input_error(
            expected="a file to write the report to",
            got=f"{target.name or 'the current folder'}, which is a folder",
            why="a report is one HTML file",
            fix='write_report(folders, "report.html")',
        )
    page = render([read_run(folder) for folder in named])
    return atomic_write_text(target, page)


def render(runs: Sequence[Run]) -> str:
    """The page as text."""
    sections = [_section(i, run, title) for i, (run, title) in enumerate(zip(runs, _titles(runs), strict=True), 1)]
    environment = Environment(
        loader=PackageLoader("hf_unlearn.results", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    planes = _planes(sections) if len(sections) > 1 else None
    results = [section.evaluated for section in sections if section.evaluated is not None]
    return environment.get_template(_TEMPLATE).render(
        sections=sections, planes=planes, rules=verdict_rules(results), cell=_cell
    )


def _section(number: int, run: Run, title: str) -> Section:
    results = side_by_side(run.evaluations)
    after = results.get("after")
    plots = {"plane": plane({"": run}), "losses": losses(run.record), "distributions": distributions(run)}
    plots |= {"excess": excess_plot(run.record.attack_report), "courses": courses_plot(run.record.attack_report)}
    return Section(
        number=number,
        run=run,
        title=title,
        verdict=verdict(run.record),
        warnings=[
            *run.record.warnings,
            *(after.warnings if after is not None else []),
            *mismatches(run.evaluations),
            *run.notes,
        ],
        bars=_bars(results),
        models=list(results),
        headline=table_rows(results) if results else [],
        everything=table_rows(results, everything=True) if results else [],
        suite=next((result.suite for result in results.values()), ""),
        evaluated=results.get("after", next(iter(results.values()), None)),
        figures={name: _figure(plot, f"r{number}-{name}") for name, plot in plots.items()},
        facts=facts_of(run.record),
        attacks=attack_facts(run.record),
    )


def _bars(results: dict[str, EvaluationResult]) -> dict[str, list[Bar]]:
    """The suite's pair of metrics as bars by what a table calls them, where they lie between 0 and 1."""
    after = results.get("after")
    bars: dict[str, list[Bar]] = {}
    for metric in (after.pair or ()) if after is not None else ():
        cells = next((row.cells for row in table_rows(results, everything=True) if row.metric == metric), [])
        words = dict(zip(results, cells, strict=False))
        drawn = [_bar(name, results[name], metric, words[name]) for name in MODELS if name in words]
        bars[label_of(metric, results.values())] = [bar for bar in drawn if bar is not None]
    return {label: shown for label, shown in bars.items() if shown}


def _bar(model: str, result: EvaluationResult, metric: str, words: str) -> Bar | None:
    figure = result.metrics.get(metric)
    if figure is None or not 0 <= figure.value <= 1:
        return None
    low, high = (min(max(end, 0.0), 1.0) for end in ends(figure))
    return Bar(model, words, 100 * min(max(figure.value, 0.0), 1.0), 100 * low, 100 * (high - low))


def _figure(plot: Plot | None, prefix: str) -> Figure | None:
    if plot is None:
        return None
    drawings = [Markup(inline_svg(panel, f"{prefix}-{i}")) for i, panel in enumerate(plot.panels, 1)]
    return Figure(plot.title, plot.caption, plot.panels[0].scale > 1, drawings)


def _planes(sections: Sequence[Section]) -> Planes | None:
    """A plane for each suite, its points numbered like the runs; None where no suite has its pair of metrics."""
    drawings: dict[str, Markup] = {}
    shown: dict[str, Run] = {}
    captions = []
    for suite in dict.fromkeys(section.suite for section in sections):
        runs = {str(section.number): section.run for section in sections if section.suite == suite}
        plot = plane(runs)
        if plot is not None:
            drawings[suite] = Markup(inline_svg(plot.panels[0], f"plane-{len(drawings) + 1}"))
            captions.append(plot.caption)
            shown |= runs
    if not drawings:
        return None
    # Said once: the metrics of a plane stand at its axes.
    with_oracle = any("oracle" in run.evaluations for run in shown.values())
    return Planes(drawings, captions[0] if len(captions) == 1 else plane_caption(shown, with_oracle))


def _cell(section: Section, which: int) -> Any:
    """The model after unlearning in the overview: (value, interval, metric), or None."""
    pair = None if section.evaluated is None else section.evaluated.pair
    if pair is None or "after" not in section.models:
        return None
    place = section.models.index("after")
    row = next((row for row in section.everything if row.metric == pair[which]), None)
    if row is None or row.values[place] is None:
        return None
    return row.values[place], row.intervals[place], row.label


def _titles(runs: Sequence[Run]) -> list[str]:
    """The runs' names; those of one name are told apart by a number."""
    counts, taken = Counter(run.title for run in runs), Counter[str]()
    titles = []
    for run in runs:
        taken[run.title] += 1
        titles.append(run.title if counts[run.title] == 1 else f"{run.title} ({taken[run.title]})")
    return titles


def _no_folders() -> ValueError:
    return input_error(
        expected="the folder of at least one run",
        got="none",
        why="a report is made of what lies in the folders of runs",
        fix='write_report(["unlearned"], "report.html")',
    )
