"""Rates with missing judgements, the worst of phrasings, and kappa: worked out by hand, and against scikit-learn."""

import math

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from hf_unlearn import metrics
from hf_unlearn.metrics import (
    Agreement,
    cohen_kappa,
    judge_errors,
    judged_bounds,
    judged_rate,
    proportion,
    worst_over_phrasings,
)

NAN = math.nan


def test_errors_are_left_out_of_the_rate_and_both_ends_of_the_interval_hold_for_them():
    values = [1] * 10 + [0] * 29 + [NAN]
    rate = judged_rate(values)
    assert rate.value == pytest.approx(10 / 39) and rate.n == 39
    assert rate.low == proportion([1] * 10 + [0] * 30).low  # none of the errors leaks
    assert rate.high == proportion([1] * 11 + [0] * 29).high  # all of them do
    assert judged_bounds(values) == (10 / 40, 11 / 40)
    assert judge_errors(values).value == 1 / 40


def test_no_flag_among_few_errors_is_not_zero_for_sure():
    clean, failed = judged_rate([0] * 40), judged_rate([0] * 39 + [NAN])
    assert failed.value == 0 and failed.high > clean.high
    assert clean == proportion([False] * 40)


def test_above_five_percent_of_errors_there_is_no_rate():
    assert judged_rate([0] * 19 + [NAN]).value == 0  # 5%
    refused = judged_rate([0] * 18 + [NAN])
    assert math.isnan(refused.value) and refused.low is None and refused.n == 18


def test_worst_of_phrasings():
    groups = ["a", "b", "a", "b", "c", "c", "d"]
    worst = worst_over_phrasings([0, 0, 1, NAN, NAN, 1, 0], groups)
    np.testing.assert_array_equal(worst, [1, NAN, 1, 0])
    assert worst_over_phrasings([1, 0], ["a", "a"]) == [1.0]
    with pytest.raises(ValueError, match="one length"):
        worst_over_phrasings([1, 0], ["a"])


def test_kappa_by_hand():
    # 20 both yes, 5 judge alone, 10 person alone, 15 both no: p_o = .7, p_e = .5 * .6 + .5 * .4 = .5, kappa = .4
    judged = [1] * 25 + [0] * 25
    labelled = [1] * 20 + [0] * 5 + [1] * 10 + [0] * 15
    kappa = cohen_kappa(judged, labelled)
    assert kappa.value == pytest.approx(0.4) and kappa.n == 50
    assert kappa.value == pytest.approx(cohen_kappa_score(judged, labelled))
    assert kappa.low < 0.4 < kappa.high and kappa.interval == "bootstrap"
    said = Agreement(kappa, metrics.agreement_accuracy(judged, labelled), unjudged=2)
    assert said.accuracy.value == 0.7
    assert said.words.startswith("kappa .40 [.") and "on 50 rows labelled by a person; 2 more" in said.words


def test_kappa_of_opposites_is_below_zero_and_of_one_label_is_no_number():
    assert cohen_kappa([1, 0, 1, 0], [0, 1, 0, 1]).value == -1
    assert math.isnan(cohen_kappa([1, 1], [True, True]).value)
