"""How near losses are to those of rows never seen: by hand, against loops, and on rows with a planted difference."""

import math

import numpy as np
import pytest

from hf_unlearn.metrics import (
    chance_distance,
    level_correlation,
    level_error,
    loss_classifier_auc,
    loss_distance,
    loss_features,
    membership_auc,
)

PARTS = r"Expected (.|\n)*Got: (.|\n)*Why it matters: (.|\n)*What to do: "


def gamma_rows(count: int, seed: int, scale: float = 1.0, shape: float = 2.0) -> list[np.ndarray]:
    """Rows of 5 to 40 token losses of one distribution."""
    generator = np.random.default_rng(seed)
    return [generator.gamma(shape, scale / shape * 2, size=generator.integers(5, 41)) for _ in range(count)]


def largest_gap(first: list[float], second: list[float]) -> float:
    """The KS statistic as a loop over all values."""
    return max(
        abs(sum(a <= x for a in first) / len(first) - sum(b <= x for b in second) / len(second))
        for x in first + second
    )


def test_loss_distance_by_hand_and_against_the_loop():
    """Of {1, 2, 3} the share up to 3 is 1, of {3, 4} it is a half; up to 2 it is 2/3 against 0."""
    assert loss_distance([1.0, 2.0, 3.0], [3.0, 4.0]).value == pytest.approx(2 / 3)
    assert loss_distance([1.0, 2.0], [1.0, 2.0]).value == 0
    first, second = gamma_rows(12, 0), gamma_rows(9, 1, scale=1.3)
    tokens = loss_distance(first, second)
    assert tokens.n == 21
    flat = [[float(loss) for row in rows for loss in row] for rows in (first, second)]
    assert tokens.value == pytest.approx(largest_gap(*flat), rel=1e-12)
    assert math.isnan(loss_distance([1.0, math.nan], [1.0]).value)


def test_chance_is_what_two_draws_give():
    """For independent values the 95% point is near Smirnov's 1.358 sqrt((n + m) / (n m)); ties count once."""
    values = list(np.random.default_rng(0).normal(size=400))
    expected = 1.358 * math.sqrt((300 + 400) / (300 * 400))
    assert chance_distance(values, 300).value == pytest.approx(expected, rel=0.15)
    assert chance_distance(values, 30).value > chance_distance(values, 300).value
    assert chance_distance([2.0] * 50, 20).value == 0


def test_tokens_of_a_row_stay_together():
    """50 rows of one value ten times are 500 tokens but 50 draws, so that chance gives as much as of 50."""
    values = np.random.default_rng(1).normal(size=50)
    together = chance_distance([np.full(10, value) for value in values], 50).value
    assert together == chance_distance(list(values), 50).value
    apart = chance_distance([np.array([value]) for value in np.repeat(values, 10)], 500).value
    assert apart < together / 2


def test_draws_of_one_distribution_stay_below_chance():
    below = 0
    for seed in range(40):
        forget, unseen = gamma_rows(60, 2 * seed), gamma_rows(60, 2 * seed + 1)
        below += loss_distance(forget, unseen).value <= chance_distance(unseen, 60, seed=seed).value
    assert below >= 35  # 38 are expected
    shifted = gamma_rows(60, 3, scale=2.0)
    assert loss_distance(shifted, gamma_rows(60, 4)).value > chance_distance(gamma_rows(60, 4), 60).value


def test_loss_features_by_hand():
    """Mean, five quantiles, the mean of the lowest 40% (two of five), and the mean over the 9 bytes of one letter."""
    (features,) = loss_features([[-5.0, -4.0, -3.0, -2.0, -1.0]], ["a"])
    assert list(features) == pytest.approx([-3, -4.6, -4, -3, -2, -1.4, -4.5, -3 / 9])


def test_the_classifier_finds_what_the_mean_does_not():
    """Rows of the same mean whose losses are spread otherwise: the loss attack is blind, the classifier is not."""
    texts = ["x"] * 80
    forget = [-row / row.mean() for row in gamma_rows(80, 5, shape=8.0)]
    unseen = [-row / row.mean() for row in gamma_rows(80, 6, shape=1.0)]
    blind = membership_auc([row.mean() for row in forget], [row.mean() for row in unseen])
    assert blind.value == pytest.approx(0.5, abs=0.2)
    told = loss_classifier_auc(loss_features(forget, texts), loss_features(unseen, texts))
    assert told.low > 0.9
    same = loss_classifier_auc(loss_features(gamma_rows(80, 9), texts), loss_features(gamma_rows(80, 10), texts))
    assert same.low <= 0.5
    assert told.n == 160


def test_the_order_of_rows_changes_nothing():
    texts = ["x"] * 30
    rows, others = gamma_rows(30, 11), gamma_rows(30, 12)
    features = [loss_features(given, texts) for given in (rows, rows[::-1], others, others[::-1])]
    assert loss_classifier_auc(*features[::2]).value == loss_classifier_auc(*features[1::2]).value
    assert chance_distance(others, 30) == chance_distance(others[::-1], 30)


def test_losses_that_are_no_numbers_make_no_claim():
    broken = loss_classifier_auc(
        loss_features([[math.nan], [-1.0]], ["a", "b"]), loss_features([[-1.0]] * 2, ["a"] * 2)
    )
    assert math.isnan(broken.value) and math.isnan(broken.low)


def test_beside_the_oracle():
    """Ranks 1 2 3 4 against 1 2 4 3: 1 - 6 * 2 / (4 * 15); differences .1, .2, .3, .4, whose median is .25."""
    own, others = [1.0, 2.0, 3.0, 4.0], [1.1, 2.2, 4.5, 3.6]
    assert level_correlation(own, others).value == pytest.approx(0.8)
    assert level_error([1.0, 2.0, 3.0, 4.0], [1.1, 1.8, 3.3, 3.6]).value == pytest.approx(0.25)
    assert math.isnan(level_correlation([1.0, 1.0], [1.0, 2.0]).value)
    with pytest.raises(ValueError, match=PARTS):
        level_error([1.0], [1.0, 2.0])
