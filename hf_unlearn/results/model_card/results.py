"""The results section of a card: the claim, tables before and after."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ..evaluation_result import EvaluationResult
from ..phase_record import suppression_of
from ..record import RunRecord
from ..table import TableRow, label_of, table_rows
from ..verdict import Answer, Verdict, oracle_words, settings_words
from .text import NO_FIGURE, code, finite, number, plain, table

_ORDER = ("before", "after", "oracle")
_COSTS = ("seconds", "peak_memory_mb")
# Figures of Trainer's own bookkeeping, which say nothing of the model.
_BOOKKEEPING = ("_runtime", "_per_second", "_preparation_time", "epoch", "total_flos", "_tokens_seen")
_MEASURED = {
    "not forgotten": "not forgotten as it should be",
    "not measured": "whether it has forgotten is not known",
    "broken": "the model is broken, which is no forgetting",
}


@dataclass(frozen=True)
class ResultTable:
    """A table of figures with what a reader must know to read it."""

    table: str
    caption: str


def ordered(evaluations: Mapping[str, EvaluationResult]) -> dict[str, EvaluationResult]:
    """Before, after, oracle, then the others."""
    names = [name for name in _ORDER if name in evaluations]
    return {name: evaluations[name] for name in dict.fromkeys([*names, *evaluations])}


def trainer_figures(record: RunRecord) -> dict[str, float]:
    """Finite figures of the last `trainer.evaluate()`; a loss that is another name for an NLL is left out."""
    metrics = record.trainer_metrics
    named = {
        name: finite(value)
        for name, value in metrics.items()
        if not name.endswith(_BOOKKEEPING) and f"{name.removesuffix('_loss')}_nll" not in metrics
    }
    return {name: value for name, value in named.items() if value is not None}


def result_tables(record: RunRecord) -> list[ResultTable]:
    """A table for each suite, models side by side; Trainer's own figures where no suite was run."""
    suites: dict[str, dict[str, EvaluationResult]] = {}
    for name, result in ordered(record.evaluations).items():
        suites.setdefault(result.suite, {})[name] = result
    tables = [_suite_table(record, results) for results in suites.values()]
    figures = trainer_figures(record)
    if not suites and figures:
        rows = [[_trainer_label(name), number(value)] for name, value in figures.items()]
        caption = "Figures of the run's last `trainer.evaluate()`. There is no figure from before unlearning."
        tables.append(ResultTable(table(["", "at the last evaluation"], rows), caption))
    return [result_table for result_table in tables if result_table.table]


def _trainer_label(name: str) -> str:
    return plain(label_of(name.removeprefix("eval_")))


def _costs(record: RunRecord, results: Mapping[str, EvaluationResult]) -> dict[str, dict[str, float]]:
    cost = {name: record.cost[name] for name in _COSTS if finite(record.cost.get(name)) is not None}
    return {"after": cost} if "after" in results and cost else {}


def _suite_table(record: RunRecord, results: dict[str, EvaluationResult]) -> ResultTable:
    rows = [replace(row, label=_label(row, record)) for row in table_rows(results, _costs(record, results))]
    lines = [[plain(row.label), *map(_cell, row.values, row.intervals)] for row in rows]
    return ResultTable(table(["", *map(plain, results)], lines) if lines else "", _caption(record, results, rows))


def _label(row: TableRow, record: RunRecord) -> str:
    """What a figure is called; that of the cost says of what it is."""
    if row.metric == "seconds" and record.resumed_from:
        return f"{row.label} (since step {record.resumed_from:,})"
    return "peak memory of the process (MB)" if row.metric == "peak_memory_mb" else row.label


def _cell(value: str | None, interval: str | None) -> str:
    if value is None:
        return NO_FIGURE
    if "nan" in value or "inf" in value:
        return "undefined" if "nan" in value else "infinite"
    whole = interval is not None and "nan" not in interval and "inf" not in interval
    return f"{value} [{interval}]" if whole else value


def _caption(record: RunRecord, results: Mapping[str, EvaluationResult], rows: list[TableRow]) -> str:
    main = results.get("after", next(iter(results.values())))
    package = f" of the package {code(main.package)}" if main.package else ""
    sentences = [f"Suite {code(main.suite)}{package}{_on_rows(main)}."]
    if any(interval for row in rows for interval in row.intervals):
        sentences.append("95% intervals in brackets.")
    pairs = ((result.rows.get(name), rows) for result in results.values() for name, rows in main.rows.items())
    if any(others not in (None, rows) for others, rows in pairs):
        sentences.append("The columns do not rest on the same rows.")
    sentences.append(plain(settings_words(main.settings)))
    if "oracle" in results:
        sentences.append(f"**oracle**: {plain(oracle_words(record))}.")
    return " ".join(filter(None, sentences))


def row_counts(result: EvaluationResult, only: str | None = None) -> list[str]:
    """ "forget 120", a set each, or of one of them."""
    counts = {name: rows.get("count") for name, rows in result.rows.items() if only in (None, name)}
    return [f"{plain(name).replace('_', ' ')} {count:,}" for name, count in counts.items() if isinstance(count, int)]


def _on_rows(result: EvaluationResult) -> str:
    counts = row_counts(result)
    return f"; rows of its sets: {', '.join(counts)}" if counts else ""


def answers_table(answers: Sequence[Answer]) -> str:
    """The verdict in three lines: question, word, figure."""
    rows = [[answer.question, f"**{answer.word}**", plain(answer.figure)] for answer in answers]
    return table(["question", "answer", "by"], rows)


def claim(record: RunRecord, judged: Verdict) -> str:
    """What is claimed, and what is not: suppression only where the verdict has found it."""
    if suppression_of(record) is not None:
        return "Answers suppressed at inference, as far as the figures show it; the weights have forgotten nothing."
    after = record.evaluations.get("after")
    if after is None and not trainer_figures(record):
        return "No suppression is claimed, for nothing was measured after unlearning; not certified deletion."
    by = "Trainer's evaluation alone"
    if after is not None:
        rows = after.rows.get("forget", {}).get("count")
        by = f"the {code(after.suite)} suite{f' on {rows:,} forget rows' if isinstance(rows, int) else ''}"
    if judged.level in _MEASURED:
        return f"Measured by {by}: {_MEASURED[judged.level]}; nothing is certified."
    unlike = judged.level.removeprefix("suppressed") if judged.level.startswith("suppressed") else ""
    unlike = unlike.replace(", ", ", but ").replace("but comes", "but it comes")
    return f"Suppression measured by {by}{unlike}, as far as the figures below show it; not certified deletion."


def warnings(record: RunRecord) -> list[str]:
    """What the run and its evaluation after unlearning warn of."""
    after = record.evaluations.get("after")
    return [plain(warning) for warning in [*record.warnings, *([] if after is None else after.warnings)]]
