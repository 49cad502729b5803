"""MetricResult, its three intervals, and what holds for them at any values. No metric of its own."""

import dataclasses
import json
import math
import random

import numpy as np
import pytest

from hf_unlearn.metrics.result import MetricResult, bootstrap, mean, proportion
from oracles import metrics as naive

PARTS = r"Expected (.|\n)*Got: (.|\n)*Why it matters: (.|\n)*What to do: "


def normal(count: int, seed: int, centre: float = 0.0) -> list[float]:
    rng = random.Random(seed)
    return [rng.gauss(centre, 1.0) for _ in range(count)]


# --- proportion ---


def test_proportion_by_hand():
    """8 of 10: (0.8 + 3.8415 / 20) / 1.38415 +- 1.96 / 1.38415 sqrt(0.016 + 3.8415 / 400) = 0.7167 +- 0.2266."""
    result = proportion([True] * 8 + [False] * 2)
    assert (result.value, result.n, result.interval) == (0.8, 10, "wilson")
    assert result.low == pytest.approx(0.4902, abs=1e-4) and result.high == pytest.approx(0.9433, abs=1e-4)


@pytest.mark.parametrize(("successes", "n"), [(0, 1), (1, 1), (0, 12), (12, 12), (1, 12), (5, 12), (311, 1000)])
def test_proportion_against_wilson_written_out(successes, n):
    outcomes = [True] * successes + [False] * (n - successes)
    random.Random(0).shuffle(outcomes)
    result = proportion(outcomes)
    low, high = naive.wilson(successes, n)
    assert high - low > 0.05
    assert result.value == pytest.approx(successes / n, rel=1e-12) and result.n == n
    assert result.low == pytest.approx(low, abs=1e-9) and result.high == pytest.approx(high, abs=1e-9)
    assert 0 <= result.low <= result.value <= result.high <= 1


def test_a_proportion_of_all_still_leaves_room_for_doubt():
    """10 of 10 by Wilson is [n / (n + z^2), 1] = [10 / 13.84, 1]."""
    result = proportion([True] * 10)
    assert result.value == 1 and result.low == pytest.approx(10 / (10 + naive.Z_95**2)) and result.high == 1


@pytest.mark.parametrize("container", [list, tuple, np.array], ids=["list", "tuple", "array"])
def test_any_sequence_will_do(container):
    outcomes, values = container([True, False, True, True]), container([1.0, 2.0, 4.0])
    assert proportion(outcomes).value == 0.75
    assert mean(values).value == pytest.approx(7 / 3)
    assert bootstrap(np.median, values).value == 2


# --- mean ---


def test_mean_by_hand():
    result = mean([1, 2, 3, 6])
    assert (result.value, result.n, result.interval) == (3, 4, "bootstrap")
    assert 1 <= result.low < 3 < result.high <= 6


def test_the_interval_of_a_mean_is_as_wide_as_the_normal_one():
    values = normal(400, seed=1, centre=5.0)
    result = mean(values)
    deviation = math.sqrt(naive.average([(value - naive.average(values)) ** 2 for value in values]))
    half = naive.Z_95 * deviation / math.sqrt(400)
    assert half > 0.05
    assert result.value == pytest.approx(naive.average(values), rel=1e-12)
    assert result.low == pytest.approx(result.value - half, abs=0.15 * half)
    assert result.high == pytest.approx(result.value + half, abs=0.15 * half)


def test_the_interval_holds_the_truth_about_19_times_in_20():
    held = 0
    for seed in range(200):
        result = mean(normal(40, seed, centre=2.0), seed=seed)
        held += result.low <= 2.0 <= result.high
    assert 175 <= held <= 199  # 190 expected, less a little because 40 values are few


def test_seeds():
    values = normal(30, seed=2)
    assert mean(values) == mean(values) == mean(values, seed=0)
    assert mean(values, seed=1) == mean(values, seed=1)
    first, second = mean(values, seed=0), mean(values, seed=1)
    assert first.value == second.value and (first.low, first.high) != (second.low, second.high)


def test_no_random_state_but_its_own():
    np.random.seed(3)
    expected = np.random.random(4)
    np.random.seed(3)
    mean(normal(30, seed=2))
    bootstrap(np.median, normal(30, seed=2))
    assert (np.random.random(4) == expected).all()


@pytest.mark.parametrize("values", [[0.1] * 7, [0.3], [-2.0, -2.0]])
def test_equal_values_leave_no_room(values):
    for result in (mean(values), bootstrap(lambda sample: float(np.mean(sample)), values)):
        assert result.value == pytest.approx(values[0], rel=1e-12)
        assert result.low == result.high == result.value and result.n == len(values)


def test_nan_is_shown():
    result = mean([1.0, math.nan, 2.0])
    assert math.isnan(result.value) and result.n == 3
    assert math.isnan(result.low) and math.isnan(result.high)


def test_infinity_is_shown():
    """Of four values one is infinite: about a third of the resamples go without it."""
    result = mean([0.0, 0.0, 0.0, math.inf])
    assert (result.value, result.low, result.high) == (math.inf, 0, math.inf)


@pytest.mark.parametrize("n", [3, 61, 701])
def test_means_of_resamples_are_to_the_bit_those_of_one_by_one(n):
    values = normal(n, seed=n)
    assert mean(values, seed=4) == bootstrap(lambda sample: np.mean(sample), values, seed=4)


# --- bootstrap ---


def test_each_sample_is_resampled_on_its_own():
    """The difference of two equal samples would be 0 in every resample that took the same rows of both."""
    values = normal(200, seed=4)
    result = bootstrap(lambda first, second: float(first.mean() - second.mean()), values, values)
    half = naive.Z_95 * math.sqrt(2 / 200)
    assert result.value == 0
    assert result.high == pytest.approx(half, rel=0.25) and result.low == pytest.approx(-half, rel=0.25)


def test_samples_keep_their_own_lengths():
    seen = set()

    def difference(first, second):
        seen.add((len(first), len(second)))
        return float(first.mean() - second.mean())

    result = bootstrap(difference, [1.0, 2.0, 6.0], [0.0, 4.0])
    assert seen == {(3, 2)}
    assert result.value == 1 and result.interval == "bootstrap" and -3 <= result.low < 1 < result.high <= 6


def test_the_interval_is_the_middle_95_percent_of_1000_resamples():
    values = np.array(normal(30, seed=6))
    resampled = []

    def median(sample):
        if not np.array_equal(sample, values):
            resampled.append(float(np.median(sample)))
        return float(np.median(sample))

    result = bootstrap(median, values)
    assert len(resampled) == 1000 and len(set(resampled)) > 20
    low, high = np.quantile(resampled, [0.025, 0.975])
    assert result.low == pytest.approx(low, rel=1e-12) and result.high == pytest.approx(high, rel=1e-12)


def test_bootstrap_seeds():
    values = normal(30, seed=5)
    assert bootstrap(np.median, values, seed=1) == bootstrap(np.median, values, seed=1)
    first, second = bootstrap(np.median, values), bootstrap(np.var, values)
    assert first.low < first.value < first.high and first.value != second.value


@pytest.mark.parametrize("outcomes", [[math.nan, 1.0], [0.5, 0.2], [2, 1], ["no", "yes"], [[True, False]]])
def test_what_is_neither_true_nor_false_is_not_counted(outcomes):
    with pytest.raises(ValueError, match=PARTS):
        proportion(outcomes)


def test_a_table_has_no_mean():
    with pytest.raises(ValueError, match=PARTS):
        mean([[2.0, 1.0], [4.0, 4.0]])


@pytest.mark.parametrize("empty", [[], np.array([])], ids=["list", "array"])
def test_no_rows_are_refused(empty):
    for make in (proportion, mean, lambda rows: bootstrap(np.mean, rows), lambda rows: bootstrap(np.dot, [1.0], rows)):
        with pytest.raises(ValueError, match=PARTS):
            make(empty)


# --- MetricResult ---


def same(first: MetricResult, second: MetricResult) -> bool:
    """Equal field by field, NaN being itself."""
    pairs = zip(dataclasses.astuple(first), dataclasses.astuple(second), strict=True)
    return all(left == right or (left != left and right != right) for left, right in pairs)


@pytest.mark.parametrize(
    "result",
    [
        MetricResult(0.25, 12),
        MetricResult(0.25, 12, 0.1, 0.5, "wilson"),
        MetricResult(math.nan, 3, math.nan, math.nan, "bootstrap"),
        MetricResult(math.inf, 3, 1.5, math.inf, "bootstrap"),
        MetricResult(-math.inf, 1),
    ],
)
def test_json_and_back(result):
    text = json.dumps(result.to_dict(), allow_nan=False)
    assert same(MetricResult.from_dict(json.loads(text)), result)


def test_values_that_are_not_finite_are_words():
    stored = MetricResult(math.nan, 3, -math.inf, math.inf, "bootstrap").to_dict()
    assert stored == {"value": "nan", "n": 3, "low": "-inf", "high": "inf", "interval": "bootstrap"}


def test_numbers_are_pythons_own():
    for result in (proportion(np.array([True, False])), mean(np.array([1.0, 2.0], dtype=np.float32))):
        assert type(result.value) is float and type(result.n) is int
        assert type(result.low) is float and type(result.high) is float


def test_a_result_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        mean([1.0, 2.0]).value = 3.0
