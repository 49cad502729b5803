"""MC1 and MC2 of questions with unlike numbers of answers: by hand and against products of probabilities."""

import math

import numpy as np
import pytest

from hf_unlearn.metrics import mc1_credits, mc2_shares

NAN, INF = math.nan, math.inf


def test_by_hand():
    """p = 1/2 and 1/8 right, 1/4 wrong: 5/7. The likeliest is right, ties with one, or is wrong."""
    logs = [[math.log(1 / 2), math.log(1 / 4), math.log(1 / 8)], [-1.0, -1.0], [-3.0, -2.0]]
    assert mc1_credits(logs, [[1, 0, 0], [0, 1], [1, 0]]).tolist() == [1.0, 0.5, 0.0]
    shares = mc2_shares(logs, [[1, 0, 1], [0, 1], [0, 1]])
    assert shares.tolist() == pytest.approx([5 / 7, 1 / 2, 1 / (1 + math.exp(-1))])


def test_long_answers_and_broken_models():
    """e^-2000 is 0 in floating point; NaN and a question of which nothing has any probability are NaN, not wrong."""
    assert mc2_shares([[-2000.0, -2001.0]], [[1, 0]]).tolist() == pytest.approx([1 / (1 + math.exp(-1))])
    logs = [[NAN, -1.0], [-INF, -INF], [-INF, -1.0]]
    assert np.isnan(mc2_shares(logs, [[1, 0]] * 3)).tolist() == [True, True, False]
    assert mc2_shares(logs[2:], [[1, 0]]).tolist() == [0.0]
    assert np.isnan(mc1_credits(logs[:1], [[1, 0]])).all()


def test_against_products():
    generator = np.random.default_rng(0)
    logs = [generator.normal(-4, 2, size=2 + k % 4) for k in range(20)]
    right = [np.arange(len(row)) <= k % (len(row) - 1) for k, row in enumerate(logs)]
    expected = [
        sum(math.e**p for p, own in zip(row, flags, strict=True) if own) / sum(math.e**p for p in row)
        for row, flags in zip(logs, right, strict=True)
    ]
    assert mc2_shares(logs, right) == pytest.approx(expected)


@pytest.mark.parametrize(("labels", "words"), [([1, 1], "exactly one right"), ([1], "of one length")])
def test_what_is_refused(labels, words):
    with pytest.raises(ValueError, match=words):
        mc1_credits([[-1.0, -2.0]], [labels])
