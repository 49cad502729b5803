"""A tokenised row: its columns, and where its prompt ends and its answer starts."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

# The label of a token that is not trained; torch's cross entropy skips it.
IGNORED_LABEL = -100

# A row by column: `input_ids`, `labels` and `answer_start`; with alternates `alternate_input_ids`, `alternate_labels`.
TokenizedRow: TypeAlias = dict[str, Any]


class EncodedRow(NamedTuple):
    """A row on its way from text to the columns of a set.

    Attributes:
        input_ids: token ids of prompt and answer.
        labels: the id where a token is trained, else -100.
        answer_start: place of the first trained token; the number of tokens where none is trained.
    """

    input_ids: list[int]
    labels: list[int]
    answer_start: int


def first_trained(labels: Sequence[int]) -> int:
    """The place of the first label that is not -100; the number of labels where all are."""
    return next((place for place, label in enumerate(labels) if label != IGNORED_LABEL), len(labels))


def answer_start(row: Mapping[str, Any]) -> int:
    """Where a row's answer starts: its column, or its first trained token where rows come without that column.

    A row of several trained turns starts with the first of them: what lies between two of them belongs to its answer.
    """
    start = row.get("answer_start")
    return first_trained(row["labels"]) if start is None else int(start)


def prompt_ids(row: Mapping[str, Any]) -> list[int]:
    """The token ids of a row before its answer."""
    return list(row["input_ids"][: answer_start(row)])


def answer_ids(row: Mapping[str, Any]) -> list[int]:
    """The token ids of a row from its first answer token on."""
    return list(row["input_ids"][answer_start(row) :])


def trained_ids(labels: Sequence[int]) -> list[int]:
    """The tokens of a row that are trained: its answer, without the turns of others that it may hold."""
    return [label for label in labels if label != IGNORED_LABEL]


def target_count(labels: Sequence[int]) -> int:
    """How many tokens of a row a loss is computed of. The first position is never predicted, so it is no target."""
    return len(trained_ids(labels[1:]))
