"""Fluency of generated answers: empty, repetitive, gibberish, varied."""

from collections.abc import Sequence
from typing import Any

from ..errors import input_error
from .checks import flags, same_lengths, strings
from .description import PERCENT, MetricDescription
from .result import MetricResult, proportion
from .segmentation import words
from .text import is_empty, is_repetitive


def empty_rate(answers: Sequence[str]) -> MetricResult:
    """Share of [N] answers without a letter or digit, by `is_empty`; Wilson interval.

    Raises:
        ValueError: no answers.
    """
    return proportion([is_empty(answer) for answer in strings("answers", answers)])


def repetition_rate(answers: Sequence[str]) -> MetricResult:
    """Share of [N] answers that repeat themselves, by `is_repetitive`; Wilson interval.

    Raises:
        ValueError: no answers.
    """
    return proportion([is_repetitive(answer) for answer in strings("answers", answers)])


def broken_rate(answers: Sequence[str], gibberish: Any = None) -> MetricResult:
    """Share of answers that are empty, repetitive or gibberish; Wilson interval.

    Args:
        answers: [N] generated.
        gibberish: [N] bools from a detector, where there is one.

    Raises:
        ValueError: no answers, or lengths that differ.
    """
    given = strings("answers", answers)
    marked = [False] * len(given) if gibberish is None else flags("gibberish", gibberish)
    same_lengths(answers=given, gibberish=marked)
    return proportion(
        [bool(mark) or is_empty(text) or is_repetitive(text) for text, mark in zip(given, marked, strict=True)]
    )


def distinct_n(answers: Sequence[str], n: int) -> MetricResult:
    """Distinct n-grams of `words` over all n-grams of words, of all answers together; 0 where there is no n-gram.

    The paper divides by the number of tokens; here, as in later implementations, it is the number of n-grams.

    No interval: an answer drawn twice adds no distinct n-gram, so resamples would be too low throughout.

    Args:
        answers: [N] generated; an n-gram does not reach from one into the next. The result's n is N.
        n: words in an n-gram, 1 or more.

    Raises:
        ValueError: no answers, or n below 1.

    Paper: Li et al. 2016, https://arxiv.org/abs/1510.03055.
    """
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise input_error(
            expected="n of 1 or more words",
            got=repr(n),
            why="an n-gram has that many words",
            fix="pass n=2 for pairs of words",
        )
    given = strings("answers", answers)
    grams = [gram for text in map(words, given) for gram in zip(*(text[start:] for start in range(n)), strict=False)]
    return MetricResult(len(set(grams)) / len(grams) if grams else 0.0, len(given))


def _share(name: str, label: str, about: str, damage: str = "") -> MetricDescription:
    return MetricDescription(name, label, about, "share", PERCENT, False, "forget", damage)


DESCRIPTIONS = (
    _share("empty_rate", "empty answers", "share of answers without a letter or digit"),
    _share("repetition_rate", "repetitive answers", "share of answers that repeat themselves"),
    _share(
        "broken_rate",
        "empty, repetitive or gibberish",
        "share of the answers to forget prompts that are no language",
        "answers to forget prompts are empty, repetitive or gibberish",
    ),
    _share(
        "broken_harmless_rate",
        "broken ones among harmless answers",
        "share of the harmless answers that are no language",
        "harmless answers to forget prompts are empty, repetitive or gibberish",
    ),
    *(
        MetricDescription(
            f"distinct_{n}",
            f"distinct {'words' if n == 1 else 'pairs of words'}",
            f"distinct {n}-grams of words over all of them",
            greater_is_better=True,
            rows="forget",
        )
        for n in (1, 2)
    ),
)
