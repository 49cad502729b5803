"""Truth ratios, forget quality and model utility, by hand and against the loops. No log: those are test_tofu_log."""

import math
import random

import numpy as np
import pytest
import scipy.stats

from hf_unlearn.metrics.result import MetricResult
from hf_unlearn.metrics.truth import (
    UTILITY_COMPONENTS,
    forget_quality,
    ks_distance,
    model_utility,
    truth_ratio,
    truth_ratios,
)
from oracles import metrics as naive

PARTS = r"Expected (.|\n)*Got: (.|\n)*Why it matters: (.|\n)*What to do: "
LN2 = math.log(2)


def uniform(count: int, seed: int, low: float = 0.05, high: float = 3.0) -> list[float]:
    rng = random.Random(seed)
    return [rng.uniform(low, high) for _ in range(count)]


# --- Ratios ---


def test_truth_ratios_by_hand():
    """1/2 against the geometric mean of 1/4 and 1/16, and 1/4 against 1/2."""
    ratios = truth_ratios([LN2, 2 * LN2], [[2 * LN2, 4 * LN2], [LN2]])
    assert list(ratios) == pytest.approx([1 / 4, 2], rel=1e-12)


def test_truth_ratios_against_the_products():
    paraphrased = uniform(30, seed=0)
    perturbed = [uniform(1 + row % 5, seed=1 + row) for row in range(30)]
    expected = [naive.truth_ratio_of_row(*pair) for pair in zip(paraphrased, perturbed, strict=True)]
    assert min(expected) < 0.5 and max(expected) > 2
    assert list(truth_ratios(paraphrased, perturbed)) == pytest.approx(expected, rel=1e-12)
    square = np.array([uniform(5, seed=50 + row) for row in range(30)])
    expected = [naive.truth_ratio_of_row(*pair) for pair in zip(paraphrased, square.tolist(), strict=True)]
    assert list(truth_ratios(np.array(paraphrased), square)) == pytest.approx(expected, rel=1e-12)


def test_truth_ratio_by_hand():
    """min(R, 1/R) of 1/4 2 1 is 1/4 1/2 1; max(0, 1 - R) is 3/4 0 0."""
    forget = truth_ratio([1 / 4, 2, 1], variant="forget")
    utility = truth_ratio([1 / 4, 2, 1], variant="utility")
    assert forget.value == pytest.approx(7 / 12, rel=1e-12) and utility.value == pytest.approx(1 / 4, rel=1e-12)
    for result in (forget, utility):
        assert result.n == 3 and result.interval == "bootstrap" and result.low <= result.value <= result.high


@pytest.mark.parametrize("variant", ["forget", "utility"])
def test_truth_ratio_against_the_loop(variant):
    ratios = uniform(80, seed=3)
    value = truth_ratio(ratios, variant=variant).value
    assert 0.1 < value < 0.9 and value == pytest.approx(naive.truth_ratio(ratios, variant), rel=1e-12)


@pytest.mark.filterwarnings("error")
def test_truth_ratio_at_the_ends():
    """R = 0: the true answer alone is likely. R = inf: the false ones are."""
    assert truth_ratio([0.0, math.inf, 1.0, 1.0], variant="forget").value == 0.5
    assert truth_ratio([0.0, math.inf, 1.0, 1.0], variant="utility").value == 0.25
    assert truth_ratio([5e-324, 1.0], variant="forget").value == 0.5  # 1 / R is beyond the largest float
    assert list(truth_ratios([0.0], [[5000.0]])) == [0.0]
    assert math.isnan(truth_ratio([1.0, math.nan], variant="forget").value)
    assert math.isnan(truth_ratio([1.0, math.nan], variant="utility").value)
    assert math.isnan(truth_ratios([math.nan], [[LN2]])[0])


def test_the_forget_variant_is_the_same_for_inverted_ratios():
    ratios = uniform(40, seed=4)
    inverted = truth_ratio([1 / ratio for ratio in ratios], variant="forget").value
    assert inverted == pytest.approx(truth_ratio(ratios, variant="forget").value, rel=1e-12)


@pytest.mark.parametrize("variant", ["forgets", "utilty"])
def test_an_unknown_variant_is_named(variant):
    with pytest.raises(ValueError, match=PARTS) as caught:
        truth_ratio([1.0], variant=variant)
    assert f"did you mean {'forget' if variant[0] == 'f' else 'utility'!r}" in str(caught.value)


# --- Forget quality ---


def test_kolmogorov_smirnov_by_hand():
    """Two of the C(6, 3) = 20 orders of 3 and 3 values are apart as far as 1; 54 of 70 as far as 1/2 at 4 and 4."""
    assert ks_distance([1, 2, 3], [4, 5, 6]).value == 1
    assert forget_quality([1, 2, 3], [4, 5, 6]).value == pytest.approx(2 / 20, rel=1e-9)
    assert ks_distance([1, 2, 3, 4], [3, 4.5, 5, 6]).value == pytest.approx(3 / 4, rel=1e-12)
    assert ks_distance([1, 2, 3, 4], [3, 3.5, 3.6, 6]).value == pytest.approx(1 / 2, rel=1e-12)
    assert forget_quality([1, 2, 3, 4], [3, 3.5, 3.6, 6]).value == pytest.approx(54 / 70, rel=1e-9)


def test_forget_quality_has_the_rows_and_no_interval():
    for metric in (forget_quality, ks_distance):
        result = metric([1.0, 2.0, 4.0], [1.5, 3.0])
        assert result.n == 3 and result.interval is None and result.low is None and result.high is None


@pytest.mark.parametrize(("n", "m", "shift"), [(12, 12, 0.0), (15, 9, 0.5), (30, 25, 0.8), (40, 40, 0.3), (1, 7, 0.0)])
def test_kolmogorov_smirnov_against_counted_paths_and_scipy(n, m, shift):
    first, second = uniform(n, seed=5), [value + shift for value in uniform(m, seed=6)]
    peer = scipy.stats.ks_2samp(first, second)
    p, distance = forget_quality(first, second).value, ks_distance(first, second).value
    assert distance > 0 and p > 0
    for expected in (naive.ks_distance(first, second), peer.statistic):
        assert distance == pytest.approx(expected, rel=1e-12)
    for expected in (naive.ks_p(first, second), peer.pvalue):
        assert p == pytest.approx(expected, rel=1e-9)


def test_kolmogorov_smirnov_with_ties():
    rng = random.Random(7)
    first, second = [rng.randint(0, 4) for _ in range(20)], [rng.randint(1, 6) for _ in range(15)]
    assert ks_distance(first, second).value == pytest.approx(naive.ks_distance(first, second), rel=1e-12)
    assert forget_quality(first, second).value == pytest.approx(naive.ks_p(first, second), rel=1e-9)
    assert naive.ks_distance(first, second) > 0.2


def test_forget_quality_of_the_retrained_model_itself_is_1():
    ratios = uniform(25, seed=8)
    shuffled = random.Random(0).sample(ratios, 25)
    assert forget_quality(ratios, shuffled).value == 1 and ks_distance(ratios, shuffled).value == 0


def test_forget_quality_falls_as_the_ratios_move_away():
    ratios = uniform(40, seed=9)
    qualities = [forget_quality([r * factor for r in ratios], ratios).value for factor in (1, 1.3, 2, 4)]
    assert qualities[0] == 1 and sorted(qualities, reverse=True) == qualities and len(set(qualities)) == 4


def test_only_the_order_of_the_ratios_counts():
    first, second = uniform(30, seed=10), uniform(20, seed=11, high=2.0)
    for transform in (math.log, lambda ratio: ratio**3, lambda ratio: -1 / ratio):
        moved = [transform(r) for r in first], [transform(r) for r in second]
        assert ks_distance(*moved).value == ks_distance(first, second).value > 0.1
        assert forget_quality(*moved).value == forget_quality(first, second).value < 1
    assert forget_quality(second, first).value == pytest.approx(forget_quality(first, second).value, rel=1e-9)


def test_forget_quality_shows_nan():
    assert math.isnan(forget_quality([1.0, math.nan], [1.0, 2.0]).value)
    assert math.isnan(ks_distance([1.0, 2.0], [1.0, math.nan]).value)


# --- Model utility ---


def components(values: list[float]) -> dict[str, float]:
    return dict(zip(UTILITY_COMPONENTS, values, strict=True))


def test_the_nine_components():
    sets, kinds = ("retain", "real_authors", "world_facts"), ("probability", "rouge", "truth_ratio")
    assert set(UTILITY_COMPONENTS) == {f"{name}_{kind}" for name in sets for kind in kinds}
    assert len(UTILITY_COMPONENTS) == 9


def test_model_utility_by_hand():
    """9 / (3 x 1 + 3 x 2 + 3 x 3)."""
    assert model_utility(components([1, 1, 1, 0.5, 0.5, 0.5, 1 / 3, 1 / 3, 1 / 3])).value == pytest.approx(1 / 2)
    assert model_utility(components([0.3] * 9)).value == pytest.approx(0.3, rel=1e-12)


def test_model_utility_against_the_loop_and_scipy():
    values = uniform(9, seed=12, high=1.0)
    result = model_utility({name: MetricResult(value, 30) for name, value in components(values).items()})
    assert result.value == pytest.approx(naive.harmonic_mean(values), rel=1e-12)
    assert result.value == pytest.approx(float(scipy.stats.hmean(values)), rel=1e-12)
    assert min(values) < result.value < naive.average(values) < max(values)
    assert model_utility(components(values)).value == result.value


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("place", range(9))
def test_one_zero_is_no_utility_and_one_nan_is_shown(place):
    for bad in (0.0, math.nan):
        values = [0.9] * 9
        values[place] = bad
        value = model_utility(components(values)).value
        assert value == 0 if bad == 0 else math.isnan(value)


@pytest.mark.filterwarnings("error")
def test_a_component_next_to_zero_leaves_no_utility():
    """1 / 5e-324 is beyond the largest float, and so is the sum of two of 1e308."""
    assert model_utility(components([5e-324] + [0.9] * 8)).value == 0
    assert model_utility(components([1e-308] * 2 + [0.9] * 7)).value < 1e-300


def test_exactly_nine():
    nine = components([0.5] * 9)
    first = next(iter(nine))
    for wrong in ({}, {name: nine[name] for name in list(nine)[1:]}, {**nine, "forget_rouge": 0.5}):
        with pytest.raises(ValueError, match=PARTS):
            model_utility(wrong)
    with pytest.raises(ValueError, match=PARTS) as caught:
        model_utility({**{name: nine[name] for name in list(nine)[1:]}, "rouge_reatin": 0.5})
    assert first in str(caught.value)


# --- What is refused ---


@pytest.mark.parametrize(
    "make",
    [
        lambda: truth_ratios([], []),
        lambda: truth_ratio([], variant="forget"),
        lambda: forget_quality([], [1.0]),
        lambda: forget_quality([1.0], []),
        lambda: ks_distance([], [1.0]),
        lambda: ks_distance([1.0], []),
        lambda: truth_ratios([LN2], [[LN2], [LN2]]),
        lambda: truth_ratios([LN2, LN2], [[LN2], []]),
    ],
)
def test_refused(make):
    with pytest.raises(ValueError, match=PARTS):
        make()
