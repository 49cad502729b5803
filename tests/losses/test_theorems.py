"""What holds for a loss at any scores: bounds, zeros, limits where one loss is another. No number and no model."""

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from fixtures.scores import double, forget, random_logits, random_targets, retain, rows, token_logps, values_of
from hf_unlearn import losses
from hf_unlearn.losses.ceu import without_token
from hf_unlearn.model.scoring import Scores

T, V = 40, 17
TARGETS = random_targets(T, V)
LN2 = math.log(2)


def extreme(scale: float, seed: int = 0) -> Tensor:
    """Logits as far apart as `scale`, among them tokens that are all but certain and all but impossible."""
    logits = random_logits(T, V, scale=1.0, seed=seed)
    logits[::4] = 0.0  # uniform
    logits[1::4, 3] = 1.0  # one of several favourites, at any scale
    logits[2::4] = -1.0
    logits[torch.arange(2, T, 4), TARGETS[2::4]] = 1.0  # the right token certain
    logits[torch.arange(3, T, 4), TARGETS[3::4]] = -5.0  # the right token impossible
    return scale * logits


def value_and_gradient(loss: losses.Loss, scores: Scores, leaf: Tensor) -> tuple[Tensor, Tensor]:
    values = values_of(loss, scores)
    return values.detach(), torch.autograd.grad(values.sum(), leaf)[0]


SCALES = [0.1, 3.0, 100.0, 1e4]


# --- Bounds, however far the logits ---


@pytest.mark.parametrize("scale", SCALES)
def test_jsd_to_the_alternate_is_between_zero_and_log_2_with_a_finite_gradient(scale):
    logits = extreme(scale).requires_grad_()
    scores = Scores(alternate=rows(token_logps(logits, TARGETS)))
    values, gradient = value_and_gradient(losses.JSD(), scores, logits)
    assert values.min() >= -1e-6 and values.max() <= LN2 + 1e-6
    assert values.max() - values.min() > (0.01 if scale < 1 else 0.5)
    assert torch.isfinite(gradient).all() and (scale > 100 or gradient.abs().max() > 1e-3)


@pytest.mark.parametrize("scale", SCALES)
def test_jsd_to_the_reference_is_between_zero_and_log_2_with_a_finite_gradient(scale):
    logits, reference = extreme(scale).requires_grad_(), extreme(scale, seed=1)
    scores = retain(logits=logits, reference=rows(logits=reference))
    values, gradient = value_and_gradient(losses.RetainJSD(), scores, logits)
    assert values.min() >= -1e-6 and values.max() <= LN2 + 1e-6
    assert values.max() - values.min() > (1e-3 if scale < 1 else 0.5)
    assert torch.isfinite(gradient).all() and (scale > 10 or gradient.abs().max() > 1e-4)
    # Symmetric in what it compares.
    swapped = values_of(losses.RetainJSD(), retain(logits=reference, reference=rows(logits=logits.detach())))
    torch.testing.assert_close(swapped, values, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("scale", SCALES)
def test_ihl_is_between_zero_and_two(scale):
    logits = extreme(scale).requires_grad_()
    values, gradient = value_and_gradient(losses.IHL(), forget(token_ids=TARGETS, logits=logits), logits)
    assert values.min() >= 0 and values.max() <= 2
    assert values.max() - values.min() > (0.01 if scale < 1 else 1.5)
    assert torch.isfinite(gradient).all()


def test_flat_is_between_its_ends_and_reaches_them():
    certain, impossible = rows(torch.zeros(3)), rows(torch.full((3,), -1e4))
    forgotten = losses.FLAT()(Scores(forget=impossible, alternate=certain))
    kept = losses.FLAT()(Scores(forget=certain, alternate=impossible))
    assert forgotten.item() == pytest.approx(-math.tanh(1) / 2) and kept.item() == pytest.approx(math.tanh(1) / 2)
    logps = token_logps(extreme(3.0), TARGETS)
    values = losses.FLAT()(Scores(forget=rows(logps, lengths=[1] * T), alternate=rows(logps.flip(0), lengths=[1] * T)))
    assert values.abs().max() < math.tanh(1) / 2 and values.min() < -0.1 and values.max() > 0.1


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("loss", [losses.MaxEntropy(), losses.CEU(), losses.LogitMargin(), losses.UNDIAL()])
def test_losses_of_distributions_are_not_negative_and_finite(scale, loss):
    logits = extreme(scale).requires_grad_()
    scores = forget(token_ids=TARGETS, logits=logits, reference=rows(logits=extreme(scale, seed=1)))
    values, gradient = value_and_gradient(loss, scores, logits)
    assert values.min() >= -1e-6 and values.max() > 0.01
    assert torch.isfinite(values).all() and torch.isfinite(gradient).all() and gradient.abs().max() > 0


# --- Zero, and no pull, where nothing is left to do ---


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("loss", [losses.RetainKL(), losses.RetainJSD(), losses.RetainHidden(layer=1)])
def test_at_the_reference_there_is_nothing_to_keep(loss, dtype):
    before = random_logits(T, V).to(dtype)

    def at(distance: float) -> tuple[Tensor, Tensor]:
        now = (before + distance * random_logits(T, V, seed=2).to(dtype)).requires_grad_()
        scores = retain(logits=now, hidden={1: now}, reference=rows(logits=before, hidden={1: before}))
        return value_and_gradient(loss, scores, now)

    values, gradient = at(0.1)
    assert values.min() > 1e-6 and gradient.abs().max() > 1e-3
    values, gradient = at(0.0)
    if isinstance(loss, losses.RetainJSD):
        assert values.abs().max() < 1e-6 and gradient.abs().max() < 1e-6
    else:
        assert not gradient.any()
        assert not values.any()


def test_max_entropy_is_zero_at_the_uniform_distribution_alone():
    uniform, tilted = torch.full((1, V), 2.5), torch.full((1, V), 2.5)
    tilted[0, 4] += 0.5
    for logits, holds in ((uniform, True), (tilted, False)):
        logits.requires_grad_()
        values, gradient = value_and_gradient(losses.MaxEntropy(), forget(logits=logits), logits)
        assert (values.abs().max() < 1e-6) == holds and (gradient.abs().max() < 1e-6) == holds


def test_logit_margin_is_zero_at_equal_logits_alone():
    logits = torch.full((2, V), 2.5)
    logits[1, 4] += 0.5
    values, gradient = value_and_gradient(losses.LogitMargin(), forget(logits=logits.requires_grad_()), logits)
    assert values[0] == 0 and not gradient[0].any()
    assert values[1].item() == pytest.approx((0.5 * (1 - 1 / V)) ** 2) and gradient[1].abs().max() > 0.1


# --- Targets ---


@pytest.mark.parametrize("beta", [0.5, 10.0])
def test_undial_divides_the_odds_of_the_right_token_by_e_to_the_beta(beta):
    reference = random_logits(T, V).double()
    before, target = reference.softmax(-1), losses.UNDIAL(beta=beta).target(reference, TARGETS)
    torch.testing.assert_close(target.sum(-1), torch.ones(T, dtype=torch.float64))

    def odds(distribution: Tensor) -> Tensor:
        right = distribution.gather(-1, TARGETS[:, None])
        return right / (distribution.sum(-1, keepdim=True) - right)

    torch.testing.assert_close(odds(target), odds(before) * math.exp(-beta), rtol=1e-9, atol=0)
    torch.testing.assert_close(*(others(each) for each in (target, before)), rtol=1e-9, atol=0)
    assert odds(before).max() > 0.1


def test_ceu_bars_the_right_token():
    logits = random_logits(T, V).double()
    target = without_token(logits, TARGETS)
    torch.testing.assert_close(target.sum(-1), torch.ones(T, dtype=torch.float64))
    assert not target.gather(-1, TARGETS[:, None]).any()
    torch.testing.assert_close(others(target), others(logits.softmax(-1)), rtol=1e-9, atol=0)


def others(distribution: Tensor) -> Tensor:
    """The distribution among the tokens that are not the right one."""
    without = distribution.scatter(-1, TARGETS[:, None], 0.0)
    return without / without.sum(-1, keepdim=True)


def test_undial_is_at_rest_at_its_target():
    reference = random_logits(T, V).double()

    def pull(lowered: float) -> Tensor:
        shift = torch.zeros_like(reference).scatter(-1, TARGETS[:, None], -lowered)
        logits = (reference + shift + 1.5).requires_grad_()
        scores = forget(token_ids=TARGETS, logits=logits, reference=rows(logits=reference))
        values, gradient = value_and_gradient(losses.UNDIAL(beta=4.0), scores, logits)
        if lowered == 4.0:  # the lower end of a cross-entropy is its target's entropy
            target = losses.UNDIAL(beta=4.0).target(reference, TARGETS)
            torch.testing.assert_close(values, torch.special.entr(target).sum(-1))
        return gradient.abs().max()

    assert pull(4.0) < 1e-15
    assert pull(0.0) > 0.1 and pull(8.0) > 0.001


def test_rmus_target_has_length_c_and_is_the_same_whenever_it_is_made():
    loss = losses.RMU(c=6.5, layer=1, seed=3)
    state = torch.get_rng_state()
    target = loss.target(64)
    assert torch.equal(torch.get_rng_state(), state), "the run's own random numbers would be others"
    assert target.dtype == torch.float32 and target.norm().item() == pytest.approx(6.5, rel=1e-6)
    assert bool((target >= 0).all())  # of the uniform distribution on [0, 1]
    torch.manual_seed(99)
    assert torch.equal(losses.RMU(c=6.5, layer=0.5, seed=3).target(64), target)
    torch.testing.assert_close(losses.RMU(c=13, layer=1, seed=3).target(64), 2 * target)
    assert not torch.allclose(losses.RMU(c=6.5, layer=1, seed=4).target(64), target, atol=0.1)
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        # At h = 0 a gradient is -2 c u / H.
        hidden = torch.zeros(2, 64, dtype=dtype, requires_grad=True)
        values, gradient = value_and_gradient(loss, forget(hidden={1: hidden}), hidden)
        assert values.dtype == torch.promote_types(dtype, torch.float32)
        assert torch.equal(gradient, (-2 * target.to(values.dtype) / 64).to(dtype).expand(2, 64))


# --- Where one loss is another, and which way it goes ---


@pytest.mark.parametrize(
    "loss", [losses.WGA(beta=0), losses.SatImp(beta1=0, beta2=0)], ids=lambda each: type(each).__name__
)
def test_weighted_ascents_with_flat_weights_are_gradient_ascent(loss):
    found = []
    for each in (loss, losses.GradientAscent(), losses.WGA(beta=1)):
        logps = token_logps(extreme(3.0), TARGETS).requires_grad_()
        found.append(value_and_gradient(each, forget(logps), logps))
    for ours, theirs, weighted in zip(*found, strict=True):
        assert torch.equal(ours, theirs)
        assert not torch.allclose(ours, weighted, atol=0.1)


@pytest.mark.parametrize(("beta1", "beta2"), [(0, 0), (5, 1), (0, 0.5), (0.5, 0)])
def test_satimp_is_finite_where_a_token_is_certain_or_impossible(beta1, beta2):
    # A log-prob may round to above 0.
    logps = torch.tensor([0.0, 1e-7, -1e-7, -1e4, -1.0], requires_grad=True)
    values, gradient = value_and_gradient(losses.SatImp(beta1=beta1, beta2=beta2), forget(logps), logps)
    assert torch.isfinite(values).all() and torch.isfinite(gradient).all()
    assert values[0] == 0 and gradient[0] == (0 if beta2 else 1) and gradient[4] > 1e-3


def test_answer_preservation_falls_as_the_answer_gets_ahead_of_the_refusal():
    loss = losses.AnswerPreservation(beta=0.5)

    def at(nll: float, nll_alternate: float) -> float:
        # Per token: the lengths of the two answers do not matter.
        pair = Scores(retain=rows(torch.full((3,), -nll)), retain_alternate=rows(torch.full((5,), -nll_alternate)))
        return loss(pair).item()

    margins = [-40.0, -2.0, -0.5, 0.0, 0.5, 2.0, 10.0]
    values = [at(50.0, 50.0 + margin) for margin in margins]
    assert all(one > other > 0 for one, other in pairwise(values))
    assert at(1.0, 3.0) == pytest.approx(at(2.0, 4.0))
    assert at(2.0, 2.0) == pytest.approx(LN2 / 0.5)


@pytest.mark.parametrize(
    "loss",
    [losses.IHL(), losses.CEU(), losses.UNDIAL(beta=5.0), losses.WGA(), losses.SatImp(), losses.MaxEntropy()],
    ids=lambda each: each.name,
)
def test_descent_lowers_the_right_token(loss):
    logits = double([[2.0, 0.5, 0.1, -1.0]]).requires_grad_()
    targets = torch.tensor([0])
    logps = token_logps(logits, targets)
    scores = forget(logps, token_ids=targets, logits=logits, reference=rows(logits=logits.detach()))
    _, gradient = value_and_gradient(loss, scores, logits)
    assert gradient[0, 0] > 0.01
    after = token_logps(logits.detach() - 0.1 * gradient, targets)
    assert after < logps
