"""What the page shows of one run, made from its folder: figures as drawings, tables, words."""

from collections.abc import Mapping
from dataclasses import dataclass

from markupsafe import Markup

from ..evaluation_result import EvaluationResult
from ..verdict import Verdict, membership, oracle_words, settings_words, side_by_side, verdict
from .attack_facts import AttackFacts, attack_facts
from .attack_plots import courses_plot, excess_plot
from .charts import Chart
from .facts import Facts, facts_of, training_time
from .figures import Panel, Plot, inline_svg
from .metrics_table import MetricsTable, metrics_table
from .planes import method_words, plane
from .plots import distributions, losses
from .read import Run, mismatches


@dataclass(frozen=True)
class Drawing:
    """A panel inside the page; `name` is that of the chart that replaces it where scripts run, "" where it stays."""

    name: str
    svg: Markup
    chart: Chart | None


@dataclass(frozen=True)
class Figure:
    """A plot as the page has it."""

    title: str
    caption: str
    wide: bool
    drawings: list[Drawing]


@dataclass(frozen=True)
class Section:
    """What the page shows of a run."""

    number: int
    run: Run
    title: str
    verdict: Verdict
    warnings: list[str]
    models: list[str]
    headline: MetricsTable | None
    everything: MetricsTable | None
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
    def method(self) -> str:
        """The methods of the run."""
        return method_words(self.run.record)

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


def section_of(number: int, run: Run, title: str, *, alone: bool) -> Section:
    """Of a run; `alone` where no other stands on the page, so that the run has a plane of its own."""
    results = side_by_side(run.evaluations)
    after = results.get("after")
    plots = {"losses": losses(run.record), "distributions": distributions(run)}
    plots |= {"excess": excess_plot(run.record.attack_report), "courses": courses_plot(run.record.attack_report)}
    plots |= {"plane": plane({"": run}) if alone else None}
    facts = facts_of(run.record)
    return Section(
        number=number,
        run=run,
        title=title,
        verdict=verdict(run.record),
        warnings=[
            *([facts.suppression] if facts.suppression else []),
            *run.record.warnings,
            *(after.warnings if after is not None else []),
            *mismatches(run.evaluations),
            *run.notes,
        ],
        models=list(results),
        headline=metrics_table(results),
        everything=metrics_table(results, everything=True),
        suite=next((result.suite for result in results.values()), ""),
        evaluated=results.get("after", next(iter(results.values()), None)),
        figures={name: None if plot is None else figure_of(plot, f"r{number}-{name}") for name, plot in plots.items()},
        facts=facts,
        attacks=attack_facts(run.record),
    )


def figure_of(plot: Plot, prefix: str) -> Figure:
    """A plot inside the page; `prefix` starts the names of its drawings and all ids within them."""
    drawings = [drawing_of(panel, f"{prefix}-{i}") for i, panel in enumerate(plot.panels, 1)]
    return Figure(plot.title, plot.caption, plot.panels[0].scale > 1, drawings)


def drawing_of(panel: Panel, name: str) -> Drawing:
    """A panel inside the page."""
    chart = None if panel.chart is None else panel.chart()
    return Drawing("" if chart is None else name, Markup(inline_svg(panel, name)), chart)


def charts_of(sections: list[Section], others: Mapping[str, Drawing]) -> dict[str, Chart]:
    """The charts of a page by name."""
    figures = [figure for section in sections for figure in section.figures.values() if figure is not None]
    drawings = [drawing for figure in figures for drawing in figure.drawings]
    return {drawing.name: drawing.chart for drawing in [*others.values(), *drawings] if drawing.chart is not None}
