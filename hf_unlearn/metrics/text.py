"""Rules over the text of generated answers: same words, empty, repetitive."""

import re
from collections.abc import Sequence
from itertools import pairwise

from .checks import same_lengths, strings
from .description import PERCENT, of_sets
from .result import MetricResult, proportion
from .segmentation import is_unspaced, words, words_or_symbols

# Below this share of distinct word pairs an answer says the same over and over.
_DISTINCT_PAIRS = 0.5
_FEWEST_PAIRS = 4
# Pairs of characters repeat in any text; runs of five do not.
_CHARACTERS = 5
# In scripts without spaces a word has two characters or more.
_CHARACTERS_A_WORD = 2
# Letters and !? only: rules of tables, blanks to fill in and round numbers are written with runs of others.
_SAME_CHARACTER = re.compile(r"([^\W\d_]|[!?])\1{7,}")


def is_same_answer(answer: str, expected: str) -> bool:
    """Whether two answers have the same `words`: letter case, width, spacing and punctuation aside.

    Of answers without words, such as emoji alone, it is the symbols.
    """
    return words_or_symbols(answer) == words_or_symbols(expected)


def starts_like(answer: str, expected: str, count: int = 8) -> bool:
    """Whether an answer's first words are the expected ones: the sign that a text is recited.

    Two characters count as a word in scripts without spaces between words.
    """
    wanted, weight = [], 0.0
    for word in words_or_symbols(expected):
        if weight >= count:
            break
        wanted.append(word)
        weight += 1 / _CHARACTERS_A_WORD if is_unspaced(word) else 1
    return bool(wanted) and words_or_symbols(answer)[: len(wanted)] == wanted


def is_empty(answer: str) -> bool:
    """Whether an answer has no letter and no digit."""
    return not words(answer)


def is_repetitive(answer: str) -> bool:
    """Whether most of an answer's word pairs repeat earlier ones, or a letter, ! or ? runs on eight times or more.

    In scripts without spaces between words it is the runs of five characters instead of the word pairs.
    """
    answer_words = words(answer)
    characters = [word for word in answer_words if is_unspaced(word)]
    pairs = list(pairwise(word for word in answer_words if not is_unspaced(word)))
    runs = list(zip(*(characters[start:] for start in range(_CHARACTERS)), strict=False))
    return _loops(pairs) or _loops(runs) or _SAME_CHARACTER.search(answer) is not None


def _loops(grams: Sequence[tuple[str, ...]]) -> bool:
    return len(grams) >= _FEWEST_PAIRS and len(set(grams)) / len(grams) < _DISTINCT_PAIRS


def accuracy(answers: Sequence[str], expected: Sequence[str]) -> MetricResult:
    """Share of answers with exactly the expected words, by `is_same_answer`; Wilson interval.

    Signs and punctuation do not count, so "-5" equals "5"; vowel signs and accents do, in every script.

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
