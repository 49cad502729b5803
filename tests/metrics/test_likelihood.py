"""Metrics of log-likelihoods and of greedy tokens, by hand and against the loops. No model."""

import math
import random
import time

import numpy as np
import pytest

from hf_unlearn.metrics.likelihood import (
    answer_probability,
    exact_memorization,
    exact_memorizations,
    extraction_strength,
    extraction_strengths,
    option_probability,
    perplexity,
    token_nll,
)
from oracles import metrics as naive

PARTS = r"Expected (.|\n)*Got: (.|\n)*Why it matters: (.|\n)*What to do: "
LN2 = math.log(2)


def losses(count: int, seed: int = 0) -> list[float]:
    rng = random.Random(seed)
    return [rng.uniform(0.01, 4.0) for _ in range(count)]


def token_rows(count: int, seed: int = 0, right: float = 0.8) -> list[list[bool]]:
    """Rows of 1 to 12 tokens, most of them right."""
    rng = random.Random(seed)
    return [[rng.random() < right for _ in range(rng.randint(1, 12))] for _ in range(count)]


def holds_its_value(result) -> bool:
    return result.interval == "bootstrap" and result.low <= result.value <= result.high


# --- Probabilities ---


def test_answer_probability():
    result = answer_probability([LN2, 2 * LN2])  # 1/2 and 1/4
    assert result.value == pytest.approx(3 / 8, rel=1e-12) and result.n == 2 and holds_its_value(result)
    nll = losses(50)
    assert answer_probability(nll).value == pytest.approx(naive.answer_probability(nll), rel=1e-12)


def test_answer_probability_at_the_ends():
    assert answer_probability([0.0, 0.0]).value == 1
    assert answer_probability([math.inf, 0.0]).value == 0.5
    assert answer_probability([5000.0]).value == 0
    result = answer_probability([LN2, math.nan])
    assert math.isnan(result.value) and math.isnan(result.low) and math.isnan(result.high)


def test_option_probability():
    """1/2 of 1/2 + 1/4 + 1/4, and 1/4 of 1/4 + 1/2."""
    result = option_probability([LN2, 2 * LN2], [[2 * LN2, 2 * LN2], [LN2]])
    assert result.value == pytest.approx((1 / 2 + 1 / 3) / 2, rel=1e-12) and result.n == 2 and holds_its_value(result)


def test_option_probability_against_the_loop():
    rng = random.Random(1)
    nll = losses(40, seed=2)
    ragged = [losses(rng.randint(1, 5), seed=10 + row) for row in range(40)]
    value = option_probability(nll, ragged).value
    assert 0.2 < value < 0.8 and value == pytest.approx(naive.option_probability(nll, ragged), rel=1e-12)
    square = np.array([losses(3, seed=60 + row) for row in range(40)])
    assert option_probability(np.array(nll), square).value == pytest.approx(
        naive.option_probability(nll, square.tolist()), rel=1e-12
    )


def test_option_probability_where_every_probability_underflows():
    assert option_probability([2000.0], [[2000.0, 2000.0]]).value == pytest.approx(1 / 3, rel=1e-12)
    assert option_probability([2000.0], [[2000.0 - LN2]]).value == pytest.approx(1 / 3, rel=1e-12)
    assert option_probability([0.0], [[5000.0]]).value == 1
    assert option_probability([5000.0], [[0.0]]).value == 0


def test_option_probability_is_unmoved_by_a_constant():
    nll, options = losses(10), [losses(3, seed=row) for row in range(1, 11)]
    moved = option_probability([value + 700 for value in nll], [[value + 700 for value in row] for row in options])
    assert moved.value == pytest.approx(option_probability(nll, options).value, rel=1e-9)


def test_option_probability_shows_nan():
    assert math.isnan(option_probability([LN2, LN2], [[LN2], [math.nan]]).value)


# --- Nats per token ---


def test_token_nll_and_perplexity():
    """(2 + 4) / (1 + 4) nats: each token counts once, so it is not the mean of the rows' 2 and 1."""
    result = token_nll([2.0, 4.0], [1, 4])
    assert result.value == pytest.approx(1.2, rel=1e-12) and result.n == 2 and holds_its_value(result)
    assert perplexity([2.0, 4.0], [1, 4]).value == pytest.approx(math.exp(1.2), rel=1e-12)


def test_token_nll_against_the_loop():
    rng = random.Random(3)
    lengths = [rng.randint(1, 30) for _ in range(60)]
    sums = [rng.uniform(0.5, 2.0) * length for length in lengths]
    nll, exp_nll = token_nll(sums, lengths), perplexity(sums, lengths)
    assert nll.value == pytest.approx(naive.token_nll(sums, lengths), rel=1e-12)
    assert nll.low < nll.value < nll.high
    for name in ("value", "low", "high"):
        assert getattr(exp_nll, name) == pytest.approx(math.exp(getattr(nll, name)), rel=1e-9)


def test_a_row_is_resampled_with_its_length():
    """Rows of one rate and many lengths: sums and lengths drawn apart would spread it."""
    lengths = [1, 5, 40, 100]
    result = token_nll([0.7 * length for length in lengths], lengths)
    assert result.value == pytest.approx(0.7, rel=1e-12)
    assert result.low == pytest.approx(0.7, rel=1e-9) and result.high == pytest.approx(0.7, rel=1e-9)


def test_a_uniform_model_has_the_perplexity_of_its_vocabulary():
    assert perplexity([3 * math.log(50), 8 * math.log(50)], [3, 8]).value == pytest.approx(50, rel=1e-12)


def test_token_nll_of_one_row_and_of_nan():
    result = token_nll([3.0], [2])
    assert result.low == result.high == result.value == 1.5
    assert math.isnan(token_nll([3.0, math.nan], [2, 2]).value)
    assert math.isnan(perplexity([3.0, math.nan], [2, 2]).value)


# --- Greedy tokens ---

ROWS = [[True, False, True, True], [False], [True], [True, True, False], [False, False, True, True, True, True]]


def test_memorization_by_hand():
    """Right tokens 3/4 0 1 2/3 2/3; trailing runs 2/4 0 1 0 4/6."""
    assert list(exact_memorizations(ROWS)) == pytest.approx([3 / 4, 0, 1, 2 / 3, 2 / 3], rel=1e-12)
    assert list(extraction_strengths(ROWS)) == pytest.approx([1 / 2, 0, 1, 0, 2 / 3], rel=1e-12)
    exact, strength = exact_memorization(ROWS), extraction_strength(ROWS)
    assert exact.value == pytest.approx(37 / 60, rel=1e-12) and exact.n == 5 and holds_its_value(exact)
    assert strength.value == pytest.approx(13 / 30, rel=1e-12) and strength.n == 5 and holds_its_value(strength)


def test_memorization_against_the_loop():
    rows = token_rows(200)
    exact, strength = exact_memorizations(rows), extraction_strengths([np.array(row) for row in rows])
    assert list(exact) == pytest.approx([naive.exact_memorization(row) for row in rows], rel=1e-12)
    assert list(strength) == pytest.approx([naive.extraction_strength(row) for row in rows], rel=1e-12)
    assert len(set(exact)) > 10 and len(set(strength)) > 10
    assert (np.asarray(strength) <= np.asarray(exact)).all() and (np.asarray(strength) < np.asarray(exact)).any()
    assert exact_memorization(rows).value == pytest.approx(naive.average(list(exact)), rel=1e-12)
    assert extraction_strength(rows).value == pytest.approx(naive.average(list(strength)), rel=1e-12)


def test_all_right_and_all_wrong():
    for metric in (exact_memorization, extraction_strength):
        assert metric([[True] * 3, [True]]).value == 1
        assert metric([[False] * 3, [False]]).value == 0


def test_extraction_strength_takes_linear_time():
    """A run of 10^6 right tokens: every prefix tried in turn would be 10^12 looks."""
    row = np.ones(1_000_000, dtype=bool)
    row[0] = False
    start = time.perf_counter()
    assert extraction_strength([row]).value == pytest.approx(1 - 1e-6, rel=1e-12)
    assert time.perf_counter() - start < 5


def test_a_row_without_tokens_is_refused():
    """Its share would be 0 / 0."""
    for metric in (exact_memorizations, exact_memorization, extraction_strengths, extraction_strength):
        with pytest.raises(ValueError, match=PARTS):
            metric([[True], []])


# --- What is refused ---


@pytest.mark.parametrize(
    "make",
    [
        lambda: answer_probability([]),
        lambda: option_probability([], []),
        lambda: token_nll([], []),
        lambda: perplexity([], []),
        lambda: exact_memorization([]),
        lambda: extraction_strength([]),
        lambda: option_probability([LN2], [[LN2], [LN2]]),
        lambda: option_probability([LN2, LN2], [[LN2], []]),  # the share of the only option is always 1
        lambda: token_nll([1.0, 2.0], [3]),
        lambda: perplexity([1.0], [3, 4]),
        lambda: token_nll([0.0], [0]),
    ],
)
def test_refused(make):
    with pytest.raises(ValueError, match=PARTS):
        make()
