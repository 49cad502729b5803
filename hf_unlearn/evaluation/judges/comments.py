"""Labelled comments for training a judge: reading, splitting, and the judge's scores on held-out ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import Dataset

from ...data.checks import require_columns
from ...errors import input_error
from ...metrics.membership import membership_auc
from ...metrics.result import MetricResult, proportion
from ...metrics.segmentation import words

THRESHOLD = 0.5
TEXT_COLUMNS = ("text", "comment_text")
JIGSAW_LABELS = ("toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate")
# Looked for in this order where nobody names the columns: guessing by values would take any flag for a label.
LABEL_COLUMNS = (JIGSAW_LABELS, ("harmful",), ("label",))
# Why a column has to be there, in errors.
_NAMED = "comments and labels are read from the columns that are named"
# A csv's values are strings. True and 1.0 are equal to 1, and found by it.
_LABEL_VALUES: dict[Any, float] = {0: 0.0, 1: 1.0, "0": 0.0, "1": 1.0}


@dataclass(frozen=True)
class Comments:
    """Texts and what they are labelled.

    Attributes:
        texts: [N].
        values: [N, labels] in fp32, 0 or 1.
        labels: names of the columns of `values`.
    """

    texts: list[str]
    values: np.ndarray
    labels: tuple[str, ...]

    def harmful(self) -> np.ndarray:
        """Whether a row has any label, [N]."""
        return self.values.max(axis=1) == 1

    def select(self, indices: Sequence[int]) -> "Comments":
        """Some of the rows, in the order of `indices`."""
        return Comments([self.texts[i] for i in indices], self.values[list(indices)], self.labels)


def read_comments(rows: Dataset, text_column: str | None, label_columns: Sequence[str] | None) -> Comments:
    """The comments of a set of rows.

    Args:
        rows: one comment a row; label values 0 and 1 as numbers, booleans or strings.
        text_column: None takes the first of TEXT_COLUMNS that is there.
        label_columns: None takes the first group of LABEL_COLUMNS of which any is there.

    Raises:
        ValueError: no such column, a text that is no string, or a label other than 0 or 1.
    """
    columns = rows.column_names
    text_column = _text_column(columns, text_column)
    labels = _label_columns(columns, text_column, label_columns)
    texts = list(rows[text_column])
    missing = sum(not isinstance(text, str) for text in texts)
    if missing:
        raise input_error(
            expected=f"a string in every row of {text_column!r}",
            got=f"{missing} of {len(texts)} rows with another value or none",
            why="a comment without text teaches nothing, and a judge would be told it does",
            fix="drop those rows, or name another text column",
        )
    values = np.array([_label_values(label, list(rows[label])) for label in labels], dtype=np.float32)
    return Comments(texts, values.T.copy(), labels)


def split_comments(comments: Comments, share: float, seed: int) -> tuple[Comments, Comments]:
    """Rows to train on and held-out rows, drawn from the seed, each with about the same share of harmful ones.

    Rows with the same words go to the same side: a text that was trained on measures memory.

    Args:
        share: of the distinct texts, held out.

    Raises:
        ValueError: fewer than two distinct texts that are harmful, or that are not.
    """
    groups: dict[tuple[str, ...], list[int]] = {}
    for i, text in enumerate(comments.texts):
        groups.setdefault(tuple(words(text)), []).append(i)
    harmful = comments.harmful()
    generator = np.random.default_rng(seed)
    train: list[int] = []
    held: list[int] = []
    for kind in (True, False):
        alike = [group for group in groups.values() if bool(harmful[group].any()) is kind]
        if len(alike) < 2:
            raise input_error(
                expected="at least two distinct comments that are harmful and two that are not",
                got=f"{len(alike)} {'with' if kind else 'without'} a label, in {len(comments.texts)} rows",
                why="a judge learns from both, and is measured on both",
                fix="add rows of the other kind, or check which columns are the labels",
            )
        order = generator.permutation(len(alike))
        count = min(max(1, round(share * len(alike))), len(alike) - 1)
        for place, index in enumerate(order):
            (held if place < count else train).extend(alike[index])
    return comments.select(sorted(train)), comments.select(sorted(held))


def heldout_figures(probabilities: np.ndarray, held: Comments) -> dict[str, MetricResult]:
    """How well probabilities [N, labels] agree with the labels of the same rows, at threshold 0.5.

    Returns:
        `accuracy`, `precision`, `recall` and `auc` of the decision that a row is harmful (any label), and of each
        label by itself as `label/accuracy` and so on, where there are several. 95% intervals: Wilson, and a bootstrap
        over rows for `auc`. NaN where there is nothing to divide by.
    """
    figures = _figures(probabilities.max(axis=1), held.harmful())
    if len(held.labels) > 1:
        for k, label in enumerate(held.labels):
            own = _figures(probabilities[:, k], held.values[:, k] == 1)
            figures |= {f"{label}/{name}": result for name, result in own.items()}
    return figures


def _figures(scores: np.ndarray, truth: np.ndarray) -> dict[str, MetricResult]:
    flagged = scores > THRESHOLD
    nothing = MetricResult(float("nan"), 0)
    both = truth.any() and not truth.all()
    return {
        "accuracy": proportion(flagged == truth),
        "precision": proportion(truth[flagged]) if flagged.any() else nothing,
        "recall": proportion(flagged[truth]) if truth.any() else nothing,
        # The area under the ROC curve is the same for any two groups: here harmful rows stand for the members.
        "auc": membership_auc(scores[truth], scores[~truth]) if both else nothing,
    }


def _text_column(columns: list[str], given: str | None) -> str:
    if given is not None:
        require_columns([given], columns, why=_NAMED)
        return given
    present = [name for name in TEXT_COLUMNS if name in columns]
    if not present:
        raise input_error(
            expected=f"a text column: {' or '.join(map(repr, TEXT_COLUMNS))}",
            got=f"columns {columns}",
            why="nothing says which column is the comment",
            fix="name it: text_column=..., or --text_column on the command line",
        )
    return present[0]


def _label_columns(columns: list[str], text_column: str, given: Sequence[str] | None) -> tuple[str, ...]:
    if given is not None:
        labels = (given,) if isinstance(given, str) else tuple(dict.fromkeys(given))
        require_columns(labels, columns, why=_NAMED)
        if text_column not in labels and labels:
            return labels
    else:
        for group in LABEL_COLUMNS:
            present = tuple(name for name in group if name in columns and name != text_column)
            if present:
                return present
    raise input_error(
        expected="one or more label columns of 0 and 1 beside the text",
        got=f"columns {columns}, with {text_column!r} as the text",
        why="nothing says which comments are harmful",
        fix="name them: label_columns=[...], or --label_columns on the command line",
    )


def _label_values(label: str, values: list[Any]) -> list[float]:
    # Only numbers and strings: a list has no hash to be looked up by.
    wrong = [value for value in values if not isinstance(value, int | float | str) or value not in _LABEL_VALUES]
    if wrong:
        raise input_error(
            expected=f"0 or 1 in every row of {label!r}",
            got=f"{len(wrong)} of {len(values)} rows with another value ({', '.join(sorted(_kinds(wrong)))})",
            why="it is a label, and a row either has it or not",
            fix="drop unlabelled rows (-1 or empty), cut scores at a threshold, or name other label columns",
        )
    return [_LABEL_VALUES[value] for value in values]


def _kinds(values: list[Any]) -> set[str]:
    # Kinds rather than values: a column named by mistake may hold the comments.
    return {type(value).__name__ for value in values}
