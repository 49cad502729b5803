"""A model measured on a forget and a retain set, and several side by side. Which model is which, the caller knows."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from ..data.encoding import IGNORED_LABEL
from ..data.tokenization import prompt_ids
from ..measurement import RowScorer
from .generation import generate_answers
from .text import is_empty, is_repetitive, is_same_answer

# (generated answer, the row's own answer) -> whether the generated answer is harmful
Judge = Callable[[str, str], bool]


@dataclass(frozen=True)
class Comparison:
    """What every model of a comparison is measured on, so that the figures can stand side by side.

    Attributes:
        forget: tokenised forget rows.
        retain: tokenised retain rows.
        in_scope: tokenised rows that ask for the same in words that were not trained on, or None.
        judge: tells whether an answer to a forget prompt is harmful.
        scorer: how rows are scored.
        tokenizer: of all models.
        max_new_tokens: longest generated answer.
    """

    forget: Dataset
    retain: Dataset
    in_scope: Dataset | None
    judge: Judge
    scorer: RowScorer
    tokenizer: PreTrainedTokenizerBase
    max_new_tokens: int

    def answers(self, model: Any, rows: Dataset, name: str) -> list[list[int]]:
        """Greedy answers of a model to the prompts of a set, as token ids."""
        return generate_answers(
            model,
            self.tokenizer,
            [prompt_ids(row) for row in rows],
            self.scorer.accelerator,
            max_new_tokens=self.max_new_tokens,
            batch_size=self.scorer.batch_size,
            description=f"answers to {name} prompts",
        )

    def text(self, ids: Sequence[int]) -> str:
        """Ids as text, special tokens left out."""
        return self.tokenizer.decode(ids, skip_special_tokens=True)

    def expected(self, rows: Dataset) -> list[str]:
        """The rows' own answers as text."""
        return [self.text([label for label in row["labels"] if label != IGNORED_LABEL]) for row in rows]


def compare_on(comparison: Comparison, model: Any, fluency_model: Any) -> dict[str, float]:
    """The figures of one model, each a mean over the rows or answers of its set.

    Args:
        comparison: what it is measured on.
        model: on the accelerator's device.
        fluency_model: the model before unlearning, which the perplexity of generated answers is taken from.

    Returns:
        `harmful_rate`, `in_scope_harmful_rate`: share of answers that the judge calls harmful;
        `forget_nll`, `retain_nll`: nats per answer token;
        `retain_accuracy`: share of answers with exactly the expected words;
        `answer_perplexity`: exp of the mean NLL per token that the fluency model gives to the model's own answers to
        the forget prompts; high for what it would not write, gibberish above all;
        `broken_rate`: share of those answers that are empty or repetitive.
    """
    forget_ids = comparison.answers(model, comparison.forget, "forget")
    forget_text = [comparison.text(ids) for ids in forget_ids]
    retain_text = [comparison.text(ids) for ids in comparison.answers(model, comparison.retain, "retain")]
    figures = {
        "harmful_rate": _share(map(comparison.judge, forget_text, comparison.expected(comparison.forget))),
        "forget_nll": comparison.scorer(model, comparison.forget, "forget rows").mean_nll(),
        "retain_nll": comparison.scorer(model, comparison.retain, "retain rows").mean_nll(),
        "retain_accuracy": _share(map(is_same_answer, retain_text, comparison.expected(comparison.retain))),
        "answer_perplexity": _perplexity(comparison, fluency_model, forget_ids),
        "broken_rate": _share(is_empty(text) or is_repetitive(text) for text in forget_text),
    }
    if comparison.in_scope is not None:
        asked = [comparison.text(ids) for ids in comparison.answers(model, comparison.in_scope, "in-scope")]
        harmful = map(comparison.judge, asked, comparison.expected(comparison.in_scope))
        figures["in_scope_harmful_rate"] = _share(harmful)
    return figures


def _perplexity(comparison: Comparison, fluency_model: Any, answers: list[list[int]]) -> float:
    end = comparison.tokenizer.eos_token_id
    rows = []
    for row, ids in zip(comparison.forget, answers, strict=True):
        prompt = prompt_ids(row)
        # The end token, which makes an empty answer a row like any other; an answer that was cut off has none.
        answer = [*ids, end] if len(ids) < comparison.max_new_tokens else ids
        rows.append({"input_ids": [*prompt, *answer], "labels": [*([IGNORED_LABEL] * len(prompt)), *answer]})
    return math.exp(comparison.scorer(fluency_model, Dataset.from_list(rows), "fluency of the answers").mean_nll())


def _share(outcomes: Any) -> float:
    values = list(outcomes)
    return sum(values) / len(values)


# figure -> (words for a table, how it is written)
FIGURES: dict[str, tuple[str, str]] = {
    "harmful_rate": ("harmful answers", "{:.1%}"),
    "in_scope_harmful_rate": ("harmful answers, other wording", "{:.1%}"),
    "forget_nll": ("forget NLL (nats per token)", "{:.3f}"),
    "retain_nll": ("retain NLL (nats per token)", "{:.3f}"),
    "retain_accuracy": ("retain answers right", "{:.1%}"),
    "answer_perplexity": ("perplexity of the answers", "{:.1f}"),
    "broken_rate": ("empty or repetitive answers", "{:.1%}"),
    "seconds": ("seconds of training", "{:.1f}"),
    "peak_memory_mb": ("peak memory (MB)", "{:.0f}"),
}


def comparison_table(columns: Mapping[str, Mapping[str, float]]) -> str:
    """Models side by side as plain text, a row a figure; "-" where a model has none."""
    names = list(columns)
    present = [figure for figure in FIGURES if any(figure in columns[name] for name in names)]
    rows = [["", *names]]
    for figure in present:
        words, form = FIGURES[figure]
        cells = [form.format(columns[name][figure]) if figure in columns[name] else "-" for name in names]
        rows.append([words, *cells])
    widths = [max(len(row[i]) for row in rows) for i in range(len(names) + 1)]
    lines = [
        row[0].ljust(widths[0])
        + "".join(f"  {cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True))
        for row in rows
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])
