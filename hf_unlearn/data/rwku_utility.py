"""RWKU's utility sets (samples of MMLU, BBH, TruthfulQA and TriviaQA): their columns, and what is refused in them."""

from collections.abc import Mapping
from typing import Any

import datasets

from .benchmark_rows import bad_row, is_text, require_question, require_rows, require_texts

GENERAL = "utility_general"
REASON = "utility_reason"
TRUTHFULNESS = "utility_truthfulness"
FACTUALITY = "utility_factuality"
OPTIONS = 4  # of a question of MMLU
_TARGETS = ("mc1_targets", "mc2_targets")
# Configuration -> the columns that are read.
UTILITY_COLUMNS = {
    GENERAL: ("task", "question", "choices", "answer", "examples"),
    REASON: ("cot", "question", "answer"),
    TRUTHFULNESS: ("question", *_TARGETS),
    FACTUALITY: ("question", "answers"),
}
UTILITY = tuple(UTILITY_COLUMNS)
_TEXTS = ("task", "cot", "question", "subject")


def checked_utility(rows: datasets.Dataset, columns: tuple[str, ...], name: str) -> datasets.Dataset:
    """The columns of a utility set that are read, once every row has what its metric is made of.

    Args:
        rows: of the set.
        columns: those of `UTILITY_COLUMNS`, and `subject` where the rows of some subjects are taken.
        name: of the set.

    Raises:
        ValueError: a missing column, no rows, an empty text, or a question without options or answers of its kind.
    """
    require_rows(rows, columns, name, "RWKU")
    rows = rows.select_columns(list(columns))
    for column in columns:
        if column in _TEXTS:
            require_texts(rows, column, name)
    for index, row in enumerate(rows):
        if name == GENERAL:
            _require_options(name, index, row)
        elif name == REASON and not texts_of(row["answer"]):
            raise bad_row(name, index, "a text, or a list of texts, in `answer`", "none")
        elif name == TRUTHFULNESS:
            for column in _TARGETS:
                _require_labelled(name, index, row, column)
        elif name == FACTUALITY and not (isinstance(row["answers"], list) and texts_of(row["answers"])):
            raise bad_row(name, index, "a list of one or more texts in `answers`", "none")
    return rows


def texts_of(given: Any) -> list[str]:
    """A text, or those of a list that are not empty, as a list; [] for anything else."""
    return [text for text in (given if isinstance(given, list) else [given]) if is_text(text)]


def _require_options(name: str, index: int, row: Mapping[str, Any]) -> None:
    """Raise for a question, or an example before it, without four choices and the place of the right one."""
    require_question(name, index, row["choices"], row["answer"], OPTIONS)
    examples = row["examples"]
    if not isinstance(examples, list) or not all(isinstance(example, Mapping) for example in examples):
        raise bad_row(name, index, "a list of answered questions in `examples`", "something else")
    for example in examples:
        if not is_text(example.get("question")):
            raise bad_row(name, index, "a text in `question` of each of `examples`", "an empty or missing one")
        require_question(name, index, example.get("choices"), example.get("answer"), OPTIONS)


def labelled_choices(row: Mapping[str, Any], column: str) -> list[tuple[str, bool]]:
    """The answers to a question of TruthfulQA and whether each is right; empty ones, which it has, are left out."""
    given = row[column]
    pairs = zip(given["choices"], given["labels"], strict=True)
    return [(choice, label == 1) for choice, label in pairs if is_text(choice)]


def _require_labelled(name: str, index: int, row: Mapping[str, Any], column: str) -> None:
    """Raise for answers not labelled right (1) or wrong (0), some of each; `mc1_targets` has one right one."""
    targets = row[column] if isinstance(row[column], Mapping) else {}
    choices, labels = targets.get("choices"), targets.get("labels")
    if not isinstance(choices, list) or not isinstance(labels, list) or not all(isinstance(c, str) for c in choices):
        raise bad_row(name, index, f"`choices` and `labels`, both lists, in `{column}`", "something else")
    known = len(labels) == len(choices) and labels.count(1) + labels.count(0) == len(labels)
    right = [is_right for _, is_right in labelled_choices(row, column)] if known else []
    if len(set(right)) < 2:
        expected = f"a label 1 (right) or 0 (wrong) for each choice in `{column}`, some of each"
        got = f"{len(choices)} choices and {len(labels)} labels, {labels.count(1)} of them 1"
        raise bad_row(name, index, expected, got)
    if column == "mc1_targets" and sum(right) != 1:
        raise bad_row(name, index, f"one right choice in `{column}`", f"{sum(right)}")
