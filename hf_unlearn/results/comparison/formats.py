"""A comparison as text: for terminals, Markdown, LaTeX, and tidy CSV with full precision."""

import csv
import io
import re
from collections.abc import Iterable, Sequence

from ..terminal import terminal_table
from .comparison import ComparedSetting, Comparison
from .spread import Spread
from .tables import Table, tables_of

_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>|#])")
_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "±": r"$\pm$",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}
_SUMMARY = ("setting", "method", "rank", "front", "model", "metric", "label", "mean", "sd", "min", "max", "seeds")
_RUNS = ("setting", "method", "run", "seed", "model", "metric", "value", "low", "high", "n")
_TESTS = ("setting", "first", "second", "score", "n", "difference", "low", "high", "p", "p_holm")


def comparison_text(comparison: Comparison, width: int | None = None) -> str:
    """For a terminal.

    Args:
        comparison: of runs.
        width: in columns; None for the terminal's.
    """
    return "\n\n".join(table_text(table, width) for table in tables_of(comparison))


def table_text(table: Table, width: int | None = None) -> str:
    """A table for a terminal, with its notes below."""
    return terminal_table(
        table.headers, table.rows, title=table.title, notes=[*table.notes, *table.rules], width=width
    )


def comparison_markdown(comparison: Comparison) -> str:
    """As Markdown, a heading and a table each."""
    return "\n\n".join(map(table_markdown, tables_of(comparison))) + "\n"


def comparison_latex(comparison: Comparison) -> str:
    r"""As LaTeX, a `table` each; needs \usepackage{booktabs}."""
    return "% \\usepackage{booktabs}\n" + "\n".join(map(_latex, tables_of(comparison)))


def comparison_csv(comparison: Comparison) -> str:
    """As tidy CSV: a line a method, model and metric, with mean, sd and range over seeds; shares are metrics too."""
    lines = []
    for setting in comparison.settings:
        for model, figures in setting.models.items():
            lines += _summaries(setting, ("", "", ""), model, figures)
        for method in setting.methods:
            rank, front = method.standing.rank, method.standing.on_front
            named = (method.label, "" if rank is None else str(rank), str(front).lower())
            lines += _summaries(setting, named, "after", method.figures)
            shares = {f"share_{name}": share for name, share in method.shares.items()}
            lines += _summaries(setting, named, "after", shares)
    return _csv(_SUMMARY, lines)


def runs_csv(comparison: Comparison) -> str:
    """As tidy CSV: a line a run, model and metric, with the interval over rows."""
    lines = [
        [
            *(setting.title, method.label, run.name, run.seed, model, metric),
            *(repr(figure.value), _number(figure.low), _number(figure.high), figure.n),
        ]
        for setting in comparison.settings
        for method in setting.methods
        for run in method.runs
        for model, result in run.results.items()
        for metric, figure in result.metrics.items()
    ]
    return _csv(_RUNS, lines)


def tests_csv(comparison: Comparison) -> str:
    """As tidy CSV: a line a test between two methods."""
    lines = [
        [
            *(setting.title, test.first, test.second, test.score, test.n),
            *map(repr, (test.difference, test.low, test.high, test.p, test.p_holm)),
        ]
        for setting in comparison.settings
        for test in setting.tests
    ]
    return _csv(_TESTS, lines)


def _summaries(
    setting: ComparedSetting, named: tuple[str, str, str], model: str, figures: dict[str, Spread]
) -> list[Sequence[object]]:
    return [
        [
            *(setting.title, *named, model, metric),
            setting.descriptions[metric].title if metric in setting.descriptions else metric,
            *(repr(figure.mean), _number(figure.sd), repr(figure.low), repr(figure.high), figure.n),
        ]
        for metric, figure in figures.items()
    ]


def _csv(header: Sequence[str], lines: Iterable[Sequence[object]]) -> str:
    written = io.StringIO()
    writer = csv.writer(written, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(lines)
    return written.getvalue()


def _number(value: float | None) -> str:
    return "" if value is None else repr(value)


def table_markdown(table: Table) -> str:
    """A table as Markdown, with a heading above and its notes below."""

    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(map(_plain_markdown, cells))} |"

    rule = f"|{'|'.join([':---', *['---:'] * (len(table.headers) - 1)])}|"
    lines = [f"### {_plain_markdown(table.title)}", "", line(table.headers), rule, *map(line, table.rows)]
    notes = [f"- {_plain_markdown(note)}" for note in [*table.notes, *table.rules]]
    return "\n".join([*lines, *(["", *notes] if notes else [])])


def _plain_markdown(text: str) -> str:
    return _MARKDOWN.sub(r"\\\1", text)


def _latex(table: Table) -> str:
    def line(cells: Sequence[str]) -> str:
        return f"{' & '.join(map(_escaped, cells))} \\\\"

    said = _escaped(" ".join([*table.notes, *table.rules]))
    notes = [rf"\par\smallskip\footnotesize {said}"] if said else []
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_escaped(table.title)}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(table.headers) - 1)}}}",
            r"\toprule",
            line(table.headers),
            r"\midrule",
            *map(line, table.rows),
            r"\bottomrule",
            r"\end{tabular}",
            *notes,
            r"\end{table}",
            "",
        ]
    )


def _escaped(text: str) -> str:
    return "".join(_LATEX.get(sign, sign) for sign in text)
