"""Likelihood of given answers: probability, perplexity, memorisation."""

from dataclasses import replace
from typing import Any

import numpy as np

from ..errors import input_error
from .checks import Flags, Floats, flag_rows, number_rows, numbers, same_lengths
from .description import MetricDescription, of_sets
from .result import MetricResult, bootstrap, mean


def answer_probability(nll_per_token: Any) -> MetricResult:
    """Mean probability of the answers, each length-normalised: mean_i exp(-nll_i), the geometric mean of its tokens.

    Args:
        nll_per_token: [N] mean nats per answer token of each row.

    Raises:
        ValueError: no rows.

    Paper: TOFU, Maini et al. 2024, https://arxiv.org/abs/2401.06121, section 2.2.
    """
    return mean(_exp(-numbers("nll_per_token", nll_per_token)))


def option_probability(nll_per_token: Any, options_nll_per_token: Any) -> MetricResult:
    """Mean probability of the right answer among the options: mean_i p_i / (p_i + sum_k p_ik), p = exp(-nll).

    Computed in logs, so that answers too unlikely for a float still compare.

    Args:
        nll_per_token: [N] mean nats per token of the right answers.
        options_nll_per_token: [N][K] the same of the wrong ones, K >= 1; it may differ by row.

    Raises:
        ValueError: no rows, a row without options, or lengths that differ.

    Paper: TOFU, Maini et al. 2024, https://arxiv.org/abs/2401.06121, section 2.2.
    """
    right, wrong = numbers("nll_per_token", nll_per_token), number_rows("options_nll_per_token", options_nll_per_token)
    same_lengths(nll_per_token=right, options_nll_per_token=wrong)
    every = np.concatenate([[own, *others] for own, others in zip(right, wrong, strict=True)])
    starts = np.cumsum([0, *(1 + len(others) for others in wrong[:-1])])
    with np.errstate(invalid="ignore"):  # a row in which nothing has any probability is NaN
        return mean(np.exp(-right - np.logaddexp.reduceat(-every, starts)))


def token_nll(nll_sum: Any, lengths: Any) -> MetricResult:
    """NLL of a whole set in nats per token: sum of NLL / number of tokens, resampled by rows.

    Args:
        nll_sum: [N] nats of each row, all of its tokens together.
        lengths: [N] tokens of each row, 1 or more.

    Raises:
        ValueError: no rows, a row without tokens, or lengths that differ.
    """
    sums, counts = numbers("nll_sum", nll_sum), numbers("lengths", lengths)
    same_lengths(nll_sum=sums, lengths=counts)
    if not (counts >= 1).all():
        raise input_error(
            expected="lengths of 1 or more",
            got=f"{counts[~(counts >= 1)][0]:g}",
            why="the sum is divided by the number of tokens",
            fix="leave out rows without answer tokens",
        )
    return bootstrap(lambda rows: rows[:, 0].sum() / rows[:, 1].sum(), np.column_stack([sums, counts]))


def perplexity(nll_sum: Any, lengths: Any) -> MetricResult:
    """Perplexity of a whole set, exp(sum of NLL / number of tokens), its interval that of `token_nll` under exp.

    Args and raises as of `token_nll`. Infinite where the exponent is too large for a float.
    """
    nll_per_token = token_nll(nll_sum, lengths)
    ends = np.array([nll_per_token.value, nll_per_token.low, nll_per_token.high], dtype=np.float64)
    value, low, high = (float(end) for end in _exp(ends))
    return replace(nll_per_token, value=value, low=low, high=high)


def exact_memorizations(correct: Any) -> Floats:
    """Share of each row's answer tokens that the model would have chosen greedily, given those before, [N].

    Args:
        correct: N rows of bools, whether the greedy token is the answer's token, one a position.

    Raises:
        ValueError: no rows, or one without tokens.

    Paper: Tirumala et al. 2022, https://arxiv.org/abs/2205.10770.
    """
    return np.array([row.mean() for row in flag_rows("correct", correct)])


def exact_memorization(correct: Any) -> MetricResult:
    """Mean over the rows of `exact_memorizations`."""
    return mean(exact_memorizations(correct))


def extraction_strengths(correct: Any) -> Floats:
    """How much of each row's answer follows by itself: 1 - k / n, [N]; in time linear in the number of tokens.

    k is the length of the smallest prefix after which all of the n tokens are chosen greedily, so the value is the
    share of the run of right tokens at the end. 1: nothing of the answer is needed. 0: the last token is wrong.
    OpenUnlearning's loop ends at k = n - 1, so that a row with a wrong last token scores 1 / n there.

    Args:
        correct: N rows of bools, whether the greedy token is the answer's token, one a position.

    Raises:
        ValueError: no rows, or one without tokens.

    Paper: Carlini et al. 2021, https://arxiv.org/abs/2012.07805, as used for unlearning by OpenUnlearning.
    """
    return np.array([_trailing_run(row) / len(row) for row in flag_rows("correct", correct)])


def extraction_strength(correct: Any) -> MetricResult:
    """Mean over the rows of `extraction_strengths`."""
    return mean(extraction_strengths(correct))


def _trailing_run(row: Flags) -> int:
    backwards = row[::-1]
    # argmin is the place of the first False; a row without one would give 0.
    return len(row) if row.all() else int(backwards.argmin())


def _exp(exponents: Floats) -> Floats:
    with np.errstate(over="ignore"):
        return np.exp(exponents)


DESCRIPTIONS = (
    *of_sets(
        "nll",
        "NLL (nats per token)",
        knowing=False,
        about="NLL of the set's answers over their tokens",
        unit="nats per token",
    ),
    *of_sets("probability", "answer probability", knowing=True, about="length-normalised probability of the answers"),
    *of_sets(
        "exact_memorization", "exact memorisation", knowing=True, about="share of answer tokens that are the likeliest"
    ),
    *of_sets(
        "extraction_strength",
        "extraction strength",
        knowing=True,
        about="share of the answer that the model continues by itself",
    ),
    MetricDescription(
        "answer_perplexity",
        "perplexity of the answers",
        "perplexity of the model's own answers under the fluency model",
        format=".1f",
        greater_is_better=False,
        rows="forget",
    ),
)
