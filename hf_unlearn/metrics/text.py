"""Rules over the text of generated answers: same words, empty, repetitive."""

import re
from collections.abc import Sequence
from itertools import pairwise

from .checks import same_lengths, strings
from .description import PERCENT, of_sets
from .result import MetricResult, proportion

# Below this share of distinct word pairs an answer says the same over and over.
_DISTINCT_PAIRS = 0.5
_FEWEST_PAIRS = 4
# Letters and !? only: rules of tables, blanks to fill in and round numbers are written with runs of others.
_SAME_CHARACTER = re.compile(r"([^\W\d_]|[!?])\1{7,}")


def words(text: str) -> list[str]:
    """The words of a text in lower case: runs of letters and digits, without punctuation."""
    return re.findall(r"[^\W_]+", text.lower())


def is_same_answer(answer: str, expected: str) -> bool:
    """Whether two answers have the same words: letter case, spacing and punctuation aside."""
    return words(answer) == words(expected)


def starts_like(answer: str, expected: str, count: int = 8) -> bool:
    """Whether an answer's first words are the expected ones: the sign that a text is recited."""
    wanted = words(expected)[:count]
    return bool(wanted) and words(answer)[: len(wanted)] == wanted


def is_empty(answer: str) -> bool:
    """Whether an answer has no letter and no digit."""
    return not words(answer)


def is_repetitive(answer: str) -> bool:
    """Whether most of an answer's word pairs repeat earlier ones, or a letter, ! or ? runs on eight times or more.

    Scripts without spaces between words have no word pairs, so that loops in them are not seen.
    """
    pairs = list(pairwise(words(answer)))
    loops = len(pairs) >= _FEWEST_PAIRS and len(set(pairs)) / len(pairs) < _DISTINCT_PAIRS
    return loops or _SAME_CHARACTER.search(answer) is not None


def accuracy(answers: Sequence[str], expected: Sequence[str]) -> MetricResult:
    """Share of answers with exactly the expected words, by `is_same_answer`; Wilson interval.

    Signs and punctuation do not count, so "-5" equals "5".

    Args:
        answers: [N] generated.
        expected: [N] right.

    Raises:
        ValueError: no answers, or lengths that differ.
    """
    given, right = strings("answers", answers), strings("expected", expected)
    same_lengths(answers=given, expected=right)
    return proportion([is_same_answer(*pair) for pair in zip(given, right, strict=True)])


DESCRIPTIONS = of_sets(
    "accuracy",
    "answers right",
    knowing=True,
    labels={
        "forget": "forget answers given",
        "in_scope": "forget answers, other wording",
        "out_of_scope": "near neighbours right",
    },
    about="share of answers with exactly the expected words",
    unit="share",
    format=PERCENT,
)
