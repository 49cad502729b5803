"""Excess and its intervals: by hand, against a naive bootstrap, and how often they cover the truth."""

import numpy as np
import pytest

from hf_unlearn.attacks.excess import Compared, excesses, largest_excess
from hf_unlearn.results.attack_report import Excess, recovered_rows


def test_by_hand():
    leaks = Compared(np.array([0.5, 0.7]), np.array([0.1, 0.3]), np.array([0.3, 0.4, 0.2]))
    one, largest = excesses({"a": leaks})
    assert one["a"].value == pytest.approx(0.6 - 0.3) and one["a"].control == "unseen"
    assert largest == one["a"]
    assert excesses({"a": Compared(np.ones(3), None, None)}) == ({}, None)


def test_one_attack_against_a_naive_bootstrap():
    generator = np.random.default_rng(5)
    model, oracle = generator.uniform(size=40), generator.uniform(size=40)
    one, _ = excesses({"a": Compared(model, oracle, None)}, seed=3)
    draws = np.random.default_rng(3)
    resampled = [model[rows].mean() - oracle[rows].mean() for rows in draws.integers(40, size=(1000, 40))]
    value = model.mean() - oracle.mean()
    width = np.quantile(np.abs(np.array(resampled) - value), 0.95)
    assert one["a"].low == pytest.approx(value - width) and one["a"].high == pytest.approx(value + width)


def test_more_attacks_widen_the_intervals_and_the_largest_has_its_own():
    generator = np.random.default_rng(1)
    compared = {str(n): Compared(generator.uniform(size=50), generator.uniform(size=50), None) for n in range(8)}
    alone, _ = excesses({"0": compared["0"]})
    together, largest = excesses(compared)
    assert together["0"].high - together["0"].low > 1.2 * (alone["0"].high - alone["0"].low)
    assert largest.value == max(excess.value for excess in together.values())
    assert largest.low == max(excess.low for excess in together.values())
    of = largest_excess([Excess(0.2, 0.1, 0.3, "oracle"), Excess(0.15, 0.12, 0.35, "unseen")])
    assert of == Excess(0.2, 0.12, 0.35, "oracle")


def test_the_interval_of_the_worst_attack_covers_the_truth():
    """200 draws of five attacks that get nothing: correlated, skewed leaks, forget rows and never-seen rows alike."""
    generator, covered = np.random.default_rng(0), 0
    for draw in range(200):
        ease = generator.beta(0.5, 6, size=(100, 1))
        leaks = np.clip(ease + 0.05 * generator.standard_normal((100, 5)), 0, 1)
        compared = {str(n): Compared(leaks[:50, n], None, leaks[50:, n]) for n in range(5)}
        _, largest = excesses(compared, seed=draw)
        covered += largest.low <= 0 <= largest.high
    assert covered >= 0.92 * 200


def test_places_among_few_never_seen_rows_cover_chance():
    """300 draws of scores that tell nothing: a row's place rests on never-seen rows too, which are drawn as well."""
    generator, covered, plain = np.random.default_rng(0), 0, 0
    for draw in range(300):
        scores, others = generator.standard_normal(60), generator.standard_normal(60)
        places = (scores[:, None] > others).mean(1)
        guess = np.full(60, 0.5)
        held = [excesses({"a": Compared(places, None, guess, among)}, seed=draw)[1] for among in (60, 0)]
        covered += held[0].low <= 0 <= held[0].high
        plain += held[1].low <= 0 <= held[1].high
    assert covered >= 0.92 * 300 and plain < 0.9 * 300


def test_a_true_excess_lies_above_nothing():
    generator = np.random.default_rng(0)
    leaks = generator.beta(1, 8, size=(4, 60))
    _, largest = excesses(
        {"weak": Compared(leaks[0], leaks[1], None), "strong": Compared(leaks[2] + 0.3, leaks[3], None)}
    )
    assert largest.low > 0.2


def test_rows_recovered():
    model = [0.6, 0.4, 0.9, 0.55]
    assert recovered_rows({"model": model}).tolist() == [True, False, True, True]
    assert recovered_rows({"model": model, "before": [1.0, 0.7, 1.0, 1.0]}).tolist() == [True, True, True, True]
    assert recovered_rows({"model": model, "unseen": [0.1, 0.58]}).tolist() == [True, False, True, False]
    assert recovered_rows({"model": model, "unseen": [], "oracle": [0.7]}).tolist() == [False, False, True, False]
