"""Rules over the text of generated answers: same, empty, repetitive. No model and no tokenizer."""

import re
from itertools import pairwise

# Below this share of distinct word pairs an answer says the same over and over.
_DISTINCT_PAIRS = 0.5
_FEWEST_PAIRS = 4
_SAME_CHARACTER = re.compile(r"([^\s.])\1{7,}")


def is_same_answer(answer: str, expected: str) -> bool:
    """Whether two answers have the same words: letter case, spacing and punctuation aside."""
    return _words(answer) == _words(expected)


def starts_like(answer: str, expected: str, words: int = 8) -> bool:
    """Whether an answer's first words are the expected ones: the sign that a text is recited."""
    wanted = _words(expected)[:words]
    return bool(wanted) and _words(answer)[: len(wanted)] == wanted


def is_empty(answer: str) -> bool:
    """Whether an answer has no letter and no digit."""
    return not _words(answer)


def is_repetitive(answer: str) -> bool:
    """Whether most of an answer's word pairs repeat earlier ones, or a character runs on eight times or more."""
    words = _words(answer)
    pairs = list(pairwise(words))
    loops = len(pairs) >= _FEWEST_PAIRS and len(set(pairs)) / len(pairs) < _DISTINCT_PAIRS
    return loops or _SAME_CHARACTER.search(answer) is not None


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.lower())
