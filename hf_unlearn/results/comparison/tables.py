"""The tables of a comparison, as cells: ranks, figures, tests. How they are set, the formats know."""

import math
from dataclasses import dataclass, field, replace

from ...metrics import MetricDescription
from .comparison import ComparedSetting, Comparison
from .row_tests import TEST
from .spread import Spread

SPREAD = "Figures are means over seeds ± their standard deviation, with the least and the greatest in brackets."
TESTS = "paired tests"
_SURE = 0.05
_COLUMNS = 6  # methods that a page and a terminal have room for side by side


@dataclass(frozen=True)
class Table:
    """A table of texts.

    Attributes:
        title: in a line.
        headers: of the columns; the first is that of the rows' names.
        rows: cells, as many as there are headers.
        notes: sentences below.
        rules: more of them, on how the table is made.
    """

    title: str
    headers: list[str]
    rows: list[list[str]]
    notes: list[str] = field(default_factory=list)
    rules: list[str] = field(default_factory=list)


def tables_of(comparison: Comparison) -> list[Table]:
    """All tables: of each setting its ranks, figures and tests. The notes of all of it stand below the first."""
    tables = [table for setting in comparison.settings for table in tables_of_setting(setting)]
    tables[0].notes[:0] = comparison.notes
    return tables


def tables_of_setting(setting: ComparedSetting) -> list[Table]:
    """The tables of one setting: ranks, figures, tests, those of them that there are.

    Of more than a few methods the figures have a row each, not a column.
    """
    ranks = _ranks(setting)
    figures = _figures(setting, noted=ranks is None)
    if len(setting.methods) > _COLUMNS:
        figures = _turned(figures)
    tables = [*([ranks] if ranks is not None else []), figures]
    return [*tables, *([_tests(setting)] if setting.tests else [])]


def _ranks(setting: ComparedSetting) -> Table | None:
    """Which method comes first and in what; None where the suite says nothing of what was forgotten and kept."""
    if setting.pair is None:
        return None
    rows = [
        [
            method.label,
            "-" if method.standing.rank is None else str(method.standing.rank),
            "yes" if method.standing.on_front else "-",
            *(_share_cell(method.shares.get(name)) for name in setting.axes),
            method.standing.worst or "-",
            str(len(method.runs)),
        ]
        for method in setting.methods
    ]
    headers = ["method", "rank", "front", *setting.axes, "by", "seeds"]
    return Table(setting.title, headers, rows, list(setting.notes), setting.rules)


def _figures(setting: ComparedSetting, *, noted: bool) -> Table:
    """Metrics as rows, before, oracle and methods as columns."""
    columns: list[tuple[str, dict[str, Spread]]] = [
        (model, figures) for model, figures in setting.models.items() if figures
    ]
    columns += [(method.label, method.figures) for method in setting.methods]
    rows = []
    for metric in setting.metrics:
        described = setting.descriptions[metric]
        cells = [figure_cell(described, figures.get(metric)) for _, figures in columns]
        rows.append([described.title, *cells])
    notes = [*(setting.notes if noted else [])]
    return Table(f"{setting.title}: figures", ["", *(name for name, _ in columns)], rows, notes, [SPREAD])


def _turned(table: Table) -> Table:
    """The same table with its columns as rows."""
    headers, *rows = (list(cells) for cells in zip(table.headers, *table.rows, strict=True))
    return replace(table, headers=headers, rows=rows)


def _tests(setting: ComparedSetting) -> Table:
    rows = [
        [
            f"{test.first} - {test.second}",
            test.score,
            f"{test.difference:.4f} [{test.low:.4f}, {test.high:.4f}]",
            f"{test.n:,}",
            p_words(test.p_holm),
            _better(test.first, test.second, test.difference, test.p_holm),
        ]
        for test in setting.tests
    ]
    headers = ["methods", "score (less is better)", "difference", "rows", "p (Holm)", "better"]
    return Table(f"{setting.title}: {TESTS}", headers, rows, rules=[f"{TEST}."])


def figure_cell(described: MetricDescription, figure: Spread | None) -> str:
    """A figure over seeds as people read it; "-" where there is none."""
    if figure is None:
        return "-"
    mean = described.write(figure.mean)
    if figure.sd is None or figure.low == figure.high:
        return mean
    unit = "%" if mean.endswith("%") else ""
    sd, *ends = (described.write(value).removesuffix(unit) for value in (figure.sd, figure.low, figure.high))
    return f"{mean} ± {sd} [{', '.join(ends)}]"


def p_words(p: float) -> str:
    """A p-value as tables have it."""
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def _share_cell(share: Spread | None) -> str:
    if share is None:
        return "-"
    return f"{share.mean:.3f}" if share.sd is None else f"{share.mean:.3f} ± {share.sd:.3f}"


def _better(first: str, second: str, difference: float, p: float) -> str:
    if math.isnan(p) or p >= _SURE:
        return "not shown"
    return first if difference < 0 else second
