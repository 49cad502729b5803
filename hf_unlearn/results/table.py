"""Results side by side, as rows of words and as plain text. Which model is which, the caller knows."""

from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import input_error
from ..metrics import MetricResult
from .evaluation_result import EvaluationResult

# What a metric is called in a table; others are called by their name.
_WORDS = {
    "harmful_rate": "harmful answers",
    "in_scope_harmful_rate": "harmful answers, other wording",
    "broken_harmless_rate": "broken ones among harmless answers",
    "efficacy": "efficacy (drop in harm)",
    "forget_nll": "forget NLL (nats per token)",
    "retain_nll": "retain NLL (nats per token)",
    "forget_accuracy": "forget answers given",
    "in_scope_accuracy": "forget answers, other wording",
    "retain_accuracy": "retain answers right",
    "out_of_scope_accuracy": "near neighbours right",
    "retain_rouge": "retain ROUGE-L recall",
    "forget_rouge": "forget ROUGE-L recall",
    "forget_probability": "forget answer probability",
    "retain_probability": "retain answer probability",
    "forget_truth_ratio": "forget truth ratio",
    "forget_extraction_strength": "forget extraction strength",
    "common_substring": "longest common run with the text",
    "recited_rate": "passages recited (half or more)",
    "bleu": "BLEU with the text",
    "model_utility": "model utility",
    "forget_quality": "forget quality (KS p)",
    "ks_distance": "KS distance to the oracle",
    "refusal_rate": "refusals",
    "answer_perplexity": "perplexity of the answers",
    "empty_rate": "empty answers",
    "repetition_rate": "repetitive answers",
    "broken_rate": "empty, repetitive or gibberish",
    "min_k_auc": "membership AUC (min-k)",
    "min_k_privleak": "privacy leak (min-k, percent)",
    "seconds": "seconds of training",
    "peak_memory_mb": "peak memory (MB)",
}
_SHARES = ("_rate", "_accuracy")
_FORMS = {
    "efficacy": "{:.1%}",
    "forget_quality": "{:.3g}",
    "answer_perplexity": "{:.1f}",
    "seconds": "{:.1f}",
    "peak_memory_mb": "{:.0f}",
}
_PERCENT = ("_privleak", "_relative_difference")


@dataclass(frozen=True)
class TableRow:
    """A figure of several models, as people read it.

    Attributes:
        metric: its name.
        label: what a table calls it.
        values: one a model, None where a model has none.
        intervals: "96.9, 100.0", the 95% interval of each value in the value's units, None where there is none.
    """

    metric: str
    label: str
    values: list[str | None]
    intervals: list[str | None]

    @property
    def cells(self) -> list[str]:
        """Values with their intervals in brackets, "-" where there is none."""
        pairs = zip(self.values, self.intervals, strict=True)
        return ["-" if value is None else value if ends is None else f"{value} [{ends}]" for value, ends in pairs]


def comparison_table(
    results: Mapping[str, EvaluationResult],
    costs: Mapping[str, Mapping[str, float]] | None = None,
    *,
    everything: bool = False,
) -> str:
    """Results side by side, a row a metric with its 95% interval in brackets; "-" where a model has none.

    Args:
        results: by name of the model.
        costs: by name of the model, figures to add (`seconds`, `peak_memory_mb`).
        everything: all metrics, not the suite's headline alone.
    """
    rows = table_rows(results, costs, everything=everything)
    return _aligned([["", *results], *([row.label, *row.cells] for row in rows)])


def table_rows(
    results: Mapping[str, EvaluationResult],
    costs: Mapping[str, Mapping[str, float]] | None = None,
    *,
    everything: bool = False,
) -> list[TableRow]:
    """The rows of `comparison_table`, for those who set them in another type."""
    if not isinstance(results, Mapping) or not results:
        raise input_error(
            expected="results by name of their models",
            got=f"a {type(results).__name__}" if not isinstance(results, Mapping) else "none",
            why="a table has a column for each result",
            fix='comparison_table({"before": before, "after": after})',
        )
    costs = costs or {}
    names = list(results)
    rows = []
    for metric in _shown(results, everything):
        found = [results[name].metrics.get(metric) for name in names]
        if any(found):
            values = [None if each is None else _form(metric).format(each.value) for each in found]
            rows.append(TableRow(metric, label_of(metric), values, [_ends(metric, each) for each in found]))
    for figure in dict.fromkeys(figure for cost in costs.values() for figure in cost):
        numbers = [costs.get(name, {}).get(figure) for name in names]
        values = [None if each is None else _form(figure).format(each) for each in numbers]
        rows.append(TableRow(figure, label_of(figure), values, [None] * len(names)))
    return rows


def label_of(metric: str) -> str:
    """What a table calls a metric."""
    return _WORDS.get(metric, metric)


def _shown(results: Mapping[str, EvaluationResult], everything: bool) -> list[str]:
    first = next(iter(results.values()))
    every = list(dict.fromkeys(metric for result in results.values() for metric in result.metrics))
    return every if everything or not first.headline else [name for name in first.headline if name in every]


def _form(metric: str) -> str:
    if metric in _FORMS:
        return _FORMS[metric]
    return "{:.1%}" if metric.endswith(_SHARES) else "{:.1f}" if metric.endswith(_PERCENT) else "{:.3f}"


def _ends(metric: str, result: MetricResult | None) -> str | None:
    if result is None or result.low is None or result.high is None:
        return None
    return ", ".join(_form(metric).format(end).removesuffix("%") for end in (result.low, result.high))


def _aligned(rows: list[list[str]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        row[0].ljust(widths[0])
        + "".join(f"  {cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True))
        for row in rows
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])
