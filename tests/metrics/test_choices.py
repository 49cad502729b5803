"""Metrics of multiple choice by hand: ties, NaN, chance, a liking for letters, orders of the options."""

import math

import numpy as np
import pytest

from hf_unlearn import metrics

LOG = [[math.log(p) for p in row] for row in ([0.4, 0.3, 0.2, 0.1], [0.4, 0.35, 0.15, 0.1], [0.7, 0.1, 0.1, 0.1])]


def test_credits_by_hand():
    """Right alone, wrong, one of two that tie, one of four, NaN."""
    logps = [[0.0, -1, -2, -3], [0, -1, -2, -3], [-1, 0, 0, -3], [-2, -2, -2, -2], [0, math.nan, -1, -1]]
    credits = metrics.choice_credits(logps, [0, 1, 1, 3, 0])
    assert credits[:4].tolist() == [1, 0, 0.5, 0.25] and math.isnan(credits[4])
    clear = metrics.choice_accuracy(logps[:2], [0, 1])
    assert (clear.value, clear.interval, clear.n) == (0.5, "wilson", 2)
    tied = metrics.choice_accuracy(logps[:4], [0, 1, 1, 3])
    assert (tied.value, tied.interval) == (1.75 / 4, "bootstrap")
    assert math.isnan(metrics.choice_accuracy(logps, [0, 1, 1, 3, 0]).value)


def test_chance_is_zero():
    accuracy = metrics.MetricResult(0.4, 20, 0.25, 0.55, "wilson")
    known = metrics.above_chance(accuracy, 0.25)
    assert (known.value, known.low, known.high) == pytest.approx((0.2, 0, 0.4)) and known.n == 20
    assert metrics.above_chance(metrics.MetricResult(0.1, 5), 0.25) == metrics.MetricResult(pytest.approx(-0.2), 5)
    with pytest.raises(ValueError, match="chance from 0 to below 1"):
        metrics.above_chance(accuracy, 1.0)


def test_a_liking_for_a_letter_is_taken_off():
    """Means 0.5, 0.25, 0.15, 0.1: of the first row 0.4 / 0.5 < 0.3 / 0.25 < 0.2 / 0.15."""
    off = metrics.calibrated(LOG)
    assert np.exp(off[0]) == pytest.approx([0.8, 1.2, 4 / 3, 1.0])
    assert metrics.choice_accuracy(LOG, [2, 1, 0]).value == pytest.approx(1 / 3)  # A is said throughout
    assert metrics.choice_accuracy(off, [2, 1, 0]).value == 1
    assert metrics.top_letter_share(LOG).value == 1
    assert metrics.top_letter_share([[0, 0, -1, -1], [-1, -1, -1, 0]]).value == pytest.approx(0.5)


def test_orders_share_a_liking():
    """The letter has nine parts of ten in each order, and the option that is known the rest: it is found."""
    known = np.log([[0.55, 0.15, 0.15, 0.15]])
    orders = []
    for order in range(4):
        letters = np.roll(np.exp(known), order, axis=1) / 10 + [[0.9, 0, 0, 0]]
        orders.append(np.roll(np.log(letters), -order, axis=1))
    assert [metrics.choice_accuracy(each, [0]).value for each in orders] == [1, 0, 0, 0]
    assert metrics.choice_accuracy(metrics.over_orders(orders), [0]).value == 1
    assert np.exp(metrics.over_orders(orders)).sum() == pytest.approx(1)
    assert np.exp(metrics.over_orders(orders))[0, 0] == pytest.approx((0.9 + 0.055 * 4) / 4)


@pytest.mark.parametrize("right", [[4, 0, 0], [0, 0], [0.5, 0, 0]])
def test_places_that_no_option_has_are_refused(right):
    with pytest.raises(ValueError, match="places from 0 to K - 1"):
        metrics.choice_accuracy(LOG, right)
