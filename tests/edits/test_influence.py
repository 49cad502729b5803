"""Gauss-Newton steps on the planted model: up to the level, and gentler to retain rows than plain ascent."""

import functools

import pytest
import torch

from fixtures.edited import edited
from fixtures.planted import planted_model
from hf_unlearn.edits import Influence, RepSelect


@functools.cache
def _plain_ascent():
    return edited(RepSelect(shrink=0.0, passes=3, share_of_level=0.8), level=2.0)


def _distance(model):
    pairs = zip(model.parameters(), planted_model().parameters(), strict=True)
    return float(sum((after - before).detach().square().sum() for after, before in pairs)) ** 0.5


@pytest.mark.parametrize("factors", ["ekfac", "kfac", "diagonal"])
def test_reaches_its_share_of_the_level_and_is_gentler_than_plain_ascent(factors):
    model = planted_model()
    report = edited(Influence(factors=factors, steps=3), model, level=2.0)
    plain = _plain_ascent()
    assert report.after.forget == pytest.approx(1.6, abs=0.1) == plain.after.forget
    assert report.after.retain < 0.75 * plain.after.retain
    assert report.tried[-1].chosen and report.tried[-1].retain_nll == pytest.approx(report.after.retain)
    moved = {kind.layers for kind in report.moved if kind.changed}
    assert {"q_proj", "down_proj"} <= moved and not moved & {"embed_tokens", "lm_head", "norm"}


def test_curvature_is_to_be_that_of_the_model_before_each_step():
    fresh, stale = (edited(Influence(factors="kfac", refresh=refresh)) for refresh in (True, False))
    assert fresh.after.forget == pytest.approx(0.8 * fresh.level, abs=0.12) == stale.after.forget
    assert fresh.tried[1] == stale.tried[1]  # the first step is the same
    assert fresh.after.retain < 0.6 * stale.after.retain and fresh.tokens > stale.tokens


def test_one_step_beats_a_gradient_step_of_equal_length():
    model = planted_model()
    report = edited(Influence(steps=1), model, level=2.0)
    length = _distance(model)
    plain = planted_model()
    rate = edited(RepSelect(shrink=0.0, passes=1), plain, level=1.6).tried[-1].setting["rate"]
    again = planted_model()
    other = edited(RepSelect(shrink=0.0, passes=1, rate=rate * length / _distance(plain)), again, level=1e6)
    assert _distance(again) == pytest.approx(length, rel=1e-3)
    # As far in weights, the gradient goes farther in both NLLs: the curvature bought length that retain rows miss.
    assert report.before.retain < report.after.retain < other.after.retain
    assert report.after.forget / report.after.retain > other.after.forget / other.after.retain


def test_checks_its_arguments():
    with pytest.raises(ValueError, match="factors of influence"):
        Influence(factors="kfak")
    with pytest.raises(ValueError, match="damping of influence must be above 0"):
        Influence(damping=0.0)
    with pytest.raises(ValueError, match="steps of influence must be 1 or above"):
        Influence(steps=0)
    with pytest.raises(ValueError, match="retain_rows of influence"):
        Influence(retain_rows=0)


def test_reads_a_part_of_the_retain_rows():
    few, all_rows = (edited(Influence(steps=1, retain_rows=count), level=2.0) for count in (6, 1000))
    assert few.tokens < all_rows.tokens and few.weights_after != all_rows.weights_after
    assert torch.isfinite(torch.tensor(few.after.retain))
