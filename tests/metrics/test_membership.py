"""Membership scores, what tells members by them, and privleak: by hand, against the loops, scikit-learn. No model."""

import math
import random
import zlib

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from hf_unlearn.metrics.membership import (
    gradient_norm_scores,
    loss_scores,
    membership_auc,
    min_k_plus_plus_scores,
    min_k_scores,
    privleak,
    reference_scores,
    relative_difference,
    tpr_at_fpr,
    zlib_scores,
)
from hf_unlearn.metrics.result import MetricResult
from oracles import metrics as naive

PARTS = r"Expected (.|\n)*Got: (.|\n)*Why it matters: (.|\n)*What to do: "


def scores(count: int, seed: int, centre: float = 0.0, ties: bool = False) -> list[float]:
    rng = random.Random(seed)
    values = [rng.gauss(centre, 1.0) for _ in range(count)]
    return [float(round(value * 2)) for value in values] if ties else values


def logp_rows(count: int, seed: int = 0) -> list[list[float]]:
    """Rows of 1 to 15 log-probs."""
    rng = random.Random(seed)
    return [[-rng.expovariate(0.5) for _ in range(rng.randint(1, 15))] for _ in range(count)]


# --- Scores ---


def test_loss_scores():
    assert list(loss_scores([[-1.0, -3.0], [-2.5]])) == pytest.approx([-2, -2.5], rel=1e-12)
    rows = logp_rows(40)
    given = loss_scores([np.array(row) for row in rows])
    assert list(given) == pytest.approx([naive.average(row) for row in rows], rel=1e-12)
    assert len(set(given)) == 40


def test_zlib_scores_by_hand():
    """zlib makes 8 bytes of nothing and 9 of one letter."""
    assert [len(zlib.compress(text)) for text in (b"", b"a")] == [8, 9]
    assert list(zlib_scores([[-1.0, -3.0], [-3.0]], ["", "a"])) == pytest.approx([-2 / 8, -3 / 9], rel=1e-12)


def test_zlib_scores_against_the_loop():
    rows = logp_rows(30, seed=1)
    texts = ["the clock of tower é " * (row % 4) + "key " + "x" * row for row in range(30)]
    expected = [naive.zlib_score(*pair) for pair in zip(rows, texts, strict=True)]
    assert list(zlib_scores(rows, texts)) == pytest.approx(expected, rel=1e-12)


def test_a_text_that_compresses_well_counts_for_less():
    """At one loss, a repeated word is as many characters and fewer bytes: further below 0."""
    plain, repeated = zlib_scores([[-1.0], [-1.0]], ["quick brown foxes jump over it", "a b c " * 5])
    assert repeated < plain < 0


def test_min_k_scores_by_hand():
    """floor(0.4 x 5) = 2 of five tokens, 1 of two and of four, and never none."""
    rows = [[-1.0, -5.0, -2.0, -4.0, -3.0], [-7.0, -1.0], [-1.0, -2.0, -3.0, -9.0], [-6.0]]
    assert list(min_k_scores(rows)) == pytest.approx([-4.5, -7, -9, -6], rel=1e-12)
    assert list(min_k_scores(rows, k=0.01)) == [-5, -7, -9, -6]
    assert list(min_k_scores(rows, k=1.0)) == pytest.approx(list(loss_scores(rows)), rel=1e-12)


@pytest.mark.parametrize("k", [0.1, 0.2, 0.4, 0.75, 1.0])
def test_min_k_scores_against_the_loop(k):
    rows = logp_rows(40, seed=2)
    given = min_k_scores([np.array(row) for row in rows], k=k)
    assert list(given) == pytest.approx([naive.min_k_score(row, k) for row in rows], rel=1e-12)
    assert (np.asarray(given) <= np.asarray(loss_scores(rows)) + 1e-12).all()


def test_min_k_plus_plus_scores_by_hand():
    """z = 1 -2 0 -1 3: the two lowest are -2 and -1. A deviation of 0 makes z = 0."""
    logps = [[-1.0, -6.0, -2.0, -4.0, -1.0], [-2.0, -0.5]]
    means, deviations = [[-2.0, -2.0, -2.0, -3.0, -2.5], [-1.0, -0.5]], [[1.0, 2.0, 1.0, 1.0, 0.5], [0.5, 0.0]]
    assert list(min_k_plus_plus_scores(logps, means, deviations)) == pytest.approx([-1.5, -2], rel=1e-12)
    assert list(min_k_plus_plus_scores(logps, means, deviations, k=1.0)) == pytest.approx([1 / 5, -1], rel=1e-12)


@pytest.mark.filterwarnings("error")
def test_min_k_plus_plus_scores_against_the_loop():
    rng = random.Random(3)
    rows = logp_rows(40, seed=4)
    means = [[-rng.uniform(1, 5) for _ in row] for row in rows]
    deviations = [[rng.choice([0.0, 0.5, 1.0, 2.5]) for _ in row] for row in rows]
    arrays = [[np.array(row) for row in columns] for columns in (rows, means, deviations)]
    pairs = zip(rows, means, deviations, strict=True)
    expected = [naive.min_k_plus_plus_score(*row, k=0.4) for row in pairs]
    assert list(min_k_plus_plus_scores(*arrays)) == pytest.approx(expected, rel=1e-12)


def test_reference_and_gradient_norm_scores():
    assert list(reference_scores([1.0, 2.5], [3.0, 2.0])) == [2, -0.5]
    assert list(gradient_norm_scores([0.5, 4.0])) == [-0.5, -4]


def test_higher_is_more_like_a_member():
    """A row seen in training: each of its tokens likelier, its gradient smaller."""
    seen, unseen = [-0.1, -0.2, -0.1], [-3.0, -0.2, -2.0]
    texts = ["the silver key", "the silver key"]
    for pair in (
        loss_scores([seen, unseen]),
        zlib_scores([seen, unseen], texts),
        min_k_scores([seen, unseen]),
        min_k_plus_plus_scores([seen, unseen], [[-2.0] * 3] * 2, [[1.0] * 3] * 2),
        reference_scores([0.1, 1.7], [2.0, 2.0]),
        gradient_norm_scores([0.3, 8.0]),
    ):
        assert pair[0] > pair[1]


# --- Area under the curve ---


def test_auc_by_hand():
    """3 > 2, 3 > 0, 1 < 2, 1 > 0; then one win, one tie and two losses."""
    assert membership_auc([3, 1], [2, 0]).value == 0.75
    assert membership_auc([1, 2], [2, 3]).value == (0 + 0.5 + 0 + 0) / 4
    result = membership_auc([5, 6, 7], [1, 2])
    assert (result.value, result.low, result.high, result.interval) == (1, 1, 1, "bootstrap")
    assert membership_auc([1, 2], [5, 6, 7]).value == 0
    assert membership_auc([2.0] * 4, [2.0] * 3).value == 0.5


@pytest.mark.parametrize("ties", [False, True], ids=["no ties", "ties"])
def test_auc_against_pairs_and_sklearn(ties):
    members, nonmembers = scores(50, 5, 0.6, ties), scores(35, 6, 0.0, ties)
    result = membership_auc(members, nonmembers)
    assert 0.55 < result.value < 0.8
    for expected in (naive.auc(members, nonmembers), roc_auc_score([1] * 50 + [0] * 35, members + nonmembers)):
        assert result.value == pytest.approx(expected, rel=1e-12)
    assert 0 < result.low < result.value < result.high < 1
    swapped = membership_auc(nonmembers, members)
    assert swapped.value == pytest.approx(1 - result.value, rel=1e-12)
    moved = membership_auc([math.exp(v) for v in members], [math.exp(v) for v in nonmembers])
    assert moved == result


@pytest.mark.parametrize("ties", [False, True], ids=["no ties", "ties"])
def test_the_interval_of_the_auc_is_as_wide_as_resamples_are(ties):
    """200 resamples of each sample, drawn and counted pair by pair."""
    members, nonmembers = scores(40, 7, 0.5, ties), scores(25, 8, 0.0, ties)
    rng = random.Random(0)
    drawn = sorted(naive.auc(rng.choices(members, k=40), rng.choices(nonmembers, k=25)) for _ in range(400))
    result = membership_auc(members, nonmembers)
    assert result.low == pytest.approx(drawn[10], abs=0.03) and result.high == pytest.approx(drawn[389], abs=0.03)
    assert result.high - result.low > 0.15
    assert membership_auc(members, nonmembers) == result


def test_auc_shows_nan():
    for pair in (([1.0, math.nan], [0.0, 2.0]), ([1.0, 2.0], [math.nan, 0.0])):
        result = membership_auc(*pair)
        assert math.isnan(result.value) and math.isnan(result.low) and math.isnan(result.high)


# --- True positives at few false ones ---


def test_tpr_at_fpr_by_hand():
    """At most 1 of 4 non-members above: the threshold is the second highest of them, 3."""
    members, nonmembers = [6, 4, 3, 2, 0], [5, 3, 2, 1]
    result = tpr_at_fpr(members, nonmembers, fpr=0.25)
    assert (result.value, result.n, result.interval) == (0.4, 5, "wilson")
    low, high = naive.wilson(2, 5)
    assert result.low == pytest.approx(low, abs=1e-9) and result.high == pytest.approx(high, abs=1e-9)
    assert tpr_at_fpr(members, nonmembers).value == 0.2  # 1% of four is none: above 5
    assert tpr_at_fpr(members, nonmembers, fpr=1.0).value == 1
    assert tpr_at_fpr([2.0] * 3, [2.0] * 4, fpr=0.5).value == 0  # a tie is not above


@pytest.mark.parametrize("fpr", [0.01, 0.05, 0.1, 0.29, 0.57, 0.9])
@pytest.mark.parametrize("ties", [False, True], ids=["no ties", "ties"])
def test_tpr_at_fpr_against_every_threshold(fpr, ties):
    """100 non-members: 0.29 x 100 and 0.57 x 100 are a hair off 29 and 57 in floating point."""
    members, nonmembers = scores(64, 9, 1.2, ties), scores(100, 10, 0.0, ties)
    value = tpr_at_fpr(members, nonmembers, fpr=fpr).value
    assert value > 0 and value == pytest.approx(naive.tpr_at_fpr(members, nonmembers, fpr), rel=1e-12)


def test_tpr_at_fpr_shows_nan():
    assert math.isnan(tpr_at_fpr([1.0, math.nan], [0.0, 2.0]).value)
    assert math.isnan(tpr_at_fpr([1.0, 3.0], [0.0, math.nan]).value)


# --- Against the retrained model ---


def test_privleak_by_hand():
    """Of telling non-members: (0.4 - 0.5) / 0.5 = -20%, under-unlearnt; (0.75 - 0.5) / 0.5 = 50%, over-unlearnt."""
    assert privleak(0.6, 0.5).value == pytest.approx(-20, rel=1e-12)
    assert privleak(0.25, 0.5).value == pytest.approx(50, rel=1e-12)
    assert privleak(0.5, 0.6).value == pytest.approx(25, rel=1e-12)
    assert privleak(1.0, 0.5).value == pytest.approx(-100, rel=1e-12)
    assert privleak(MetricResult(0.6, 40, 0.5, 0.7, "bootstrap"), MetricResult(0.5, 30)).value == pytest.approx(-20)


def test_privleak_of_the_retrained_model_is_exactly_0():
    for auc in (0.1, 0.47, 1 / 3, 0.9):
        assert privleak(auc, auc).value == 0
        assert privleak(auc + 0.01, auc).value < 0 < privleak(auc - 0.01, auc).value


def test_relative_difference():
    assert relative_difference(3.0, 2.0).value == pytest.approx(50)
    assert relative_difference(1.0, 2.0).value == pytest.approx(-50)
    assert relative_difference(-1.0, -2.0).value == pytest.approx(50)  # over |baseline|: up is up
    assert relative_difference(-0.3, -0.3).value == 0
    assert relative_difference(MetricResult(3.0, 12), MetricResult(2.0, 7)).value == pytest.approx(50)


@pytest.mark.parametrize("metric", [privleak, relative_difference])
def test_rows_and_nan_of_a_comparison(metric):
    assert metric(MetricResult(0.6, 40), 0.5).n == 40 and metric(0.6, MetricResult(0.5, 30)).n == 1
    assert math.isnan(metric(math.nan, 0.5).value)


@pytest.mark.parametrize(("metric", "nothing"), [(privleak, 1.0), (relative_difference, 0.0)])
def test_there_is_no_default_baseline(metric, nothing):
    for baseline in (None, math.nan, nothing, MetricResult(math.nan, 10), MetricResult(nothing, 10)):
        with pytest.raises(ValueError, match=PARTS):
            metric(0.6, baseline)


def test_a_comparison_is_of_numbers():
    for metric in (privleak, relative_difference):
        for value in (None, "0.6"):
            with pytest.raises(ValueError, match=PARTS):
                metric(value, 0.5)


# --- What is refused ---


@pytest.mark.parametrize(
    "make",
    [
        lambda: loss_scores([]),
        lambda: zlib_scores([], []),
        lambda: min_k_scores([]),
        lambda: min_k_plus_plus_scores([], [], []),
        lambda: reference_scores([], []),
        lambda: gradient_norm_scores([]),
        lambda: membership_auc([], [1.0]),
        lambda: membership_auc([1.0], []),
        lambda: tpr_at_fpr([], [1.0]),
        lambda: tpr_at_fpr([1.0], []),
        lambda: zlib_scores([[-1.0], [-2.0]], ["a"]),
        lambda: min_k_plus_plus_scores([[-1.0]], [[-1.0], [-2.0]], [[1.0]]),
        lambda: min_k_plus_plus_scores([[-1.0, -2.0]], [[-1.0]], [[1.0, 1.0]]),
        lambda: min_k_plus_plus_scores([[-1.0, -2.0]], [[-1.0, -1.0]], [[1.0]]),
        lambda: reference_scores([1.0, 2.0], [1.0]),
        lambda: loss_scores([[-1.0], []]),
        lambda: zlib_scores([[]], ["a"]),
        lambda: min_k_scores([[]]),
        lambda: min_k_scores([[-1.0]], k=0.0),
        lambda: min_k_scores([[-1.0]], k=1.5),
        lambda: tpr_at_fpr([1.0], [1.0], fpr=-0.1),
        lambda: tpr_at_fpr([1.0], [1.0], fpr=1.5),
    ],
)
def test_refused(make):
    with pytest.raises(ValueError, match=PARTS):
        make()
