"""Gradients of the losses: by differences in fp64, and the same in chunks and in one piece. No values, no model."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from fixtures.scores import LOSSES, forget, query_of, random_logits, random_targets, rows, token_logps, values_of
from hf_unlearn import losses
from hf_unlearn.data import Role
from hf_unlearn.losses import DistributionLoss
from hf_unlearn.model import chunk_sizes
from hf_unlearn.model.chunked_logits import read_positions
from hf_unlearn.model.head_query import TokenReadout
from hf_unlearn.model.logit_provider import DenseLogits
from hf_unlearn.model.scoring import Scores

T, V = 11, 7
TARGETS = random_targets(T, V)
# Rows of 2, 4 and 5 answer tokens.
LENGTHS = [2, 4, 5]
OF_DISTRIBUTIONS = sorted(name for name, loss in LOSSES.items() if issubclass(loss, DistributionLoss))


def all_scores(logits: Tensor, reference: Tensor) -> Scores:
    """Scores of every role that have all that a loss may read, as functions of logits; these are hidden states too."""

    def of(shift: int) -> dict[str, Tensor]:
        # Each role has answer tokens of its own, or an alternate could not be told from a forget row.
        targets = (TARGETS + shift) % V
        return {"logps": token_logps(logits, targets), "token_ids": targets}

    before = {shift: token_logps(reference, (TARGETS + shift) % V) for shift in range(5)}
    roles = ("forget", "retain", "alternate", "mismatch", "retain_alternate")
    return Scores(
        **{
            role: rows(
                **of(shift),
                lengths=LENGTHS,
                logits=logits,
                hidden={0.33: logits},
                reference=rows(before[shift], lengths=LENGTHS, logits=reference, hidden={0.33: reference}),
                level=torch.tensor([1.0, 2.0, 4.0]).to(logits),  # on both sides of the rows' own
                token_level=torch.linspace(0.5, 4.0, T).to(logits),
            )
            for shift, role in enumerate(roles)
        }
    )


def logits_and_reference(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Two policies a little apart, so that a loss against the reference is neither zero nor saturated."""
    logits = random_logits(T, V, scale=1.5)
    return logits.to(dtype).requires_grad_(), (logits + random_logits(T, V, scale=0.5, seed=1)).to(dtype)


# --- By differences ---

# What they hold constant would move with the differences: see below.
WITH_CONSTANTS = {"forget/wga", "forget/satimp", "forget/ceu"}


@pytest.mark.parametrize("name", sorted(LOSSES.keys() - WITH_CONSTANTS))
def test_gradients_are_those_of_differences(name):
    logits, reference = logits_and_reference(torch.float64)
    loss = LOSSES[name]()

    def values(z: Tensor) -> Tensor:
        return values_of(loss, all_scores(z, reference))

    assert torch.autograd.grad(values(logits).sum(), logits)[0].abs().max() > 1e-3
    assert torch.autograd.gradcheck(values, logits, eps=1e-6, atol=1e-7, rtol=1e-6)


CONSTANTS_HELD: dict[str, tuple[losses.Loss, Callable[[Tensor], Tensor]]] = {
    # d/dz of stopgrad(w) lp is w (onehot(y) - p).
    "wga": (losses.WGA(beta=0.7), lambda p: right(p) ** 0.7 * (one_hot(TARGETS, V) - p)),
    "satimp": (
        losses.SatImp(beta1=2, beta2=0.5),
        lambda p: right(p) ** 2 * (1 - right(p)) ** 0.5 * (one_hot(TARGETS, V) - p),
    ),
    # That of a cross-entropy is p less its target, p / (1 - p_y) but for y.
    "ceu": (losses.CEU(), lambda p: p - p * (1 - one_hot(TARGETS, V)) / (1 - right(p))),
}


def right(probabilities: Tensor) -> Tensor:
    return probabilities.gather(-1, TARGETS[:, None])


@pytest.mark.parametrize("name", CONSTANTS_HELD)
def test_weights_and_targets_that_are_held_constant_give_no_gradient(name):
    loss, expected = CONSTANTS_HELD[name]
    logits, _ = logits_and_reference(torch.float64)
    scores = forget(token_logps(logits, TARGETS), token_ids=TARGETS, logits=logits)
    (gradient,) = torch.autograd.grad(values_of(loss, scores).sum(), logits)
    assert gradient.abs().max() > 0.01
    torch.testing.assert_close(gradient, expected(logits.detach().softmax(-1)), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", OF_DISTRIBUTIONS)
def test_nothing_flows_into_the_distributions_of_the_reference(name):
    logits, reference = logits_and_reference(torch.float64)
    values = values_of(LOSSES[name](), all_scores(logits, reference.requires_grad_()))
    into_logits, into_reference = torch.autograd.grad(values.sum(), (logits, reference), allow_unused=True)
    assert into_logits.abs().max() > 1e-3 and into_reference is None


# --- In chunks ---


def chunked(monkeypatch: pytest.MonkeyPatch, elements: int) -> int:
    """Make chunks of so many elements, and return how many of them the tokens here make."""
    monkeypatch.setattr(chunk_sizes, "CPU_CHUNK_BYTES", 4 * elements)
    return -(-T // chunk_sizes.chunk_sizes(V, 4, None).rows)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("elements", [1, 3 * V])  # a token at a time, and three, which do not go into eleven
@pytest.mark.parametrize("name", OF_DISTRIBUTIONS)
def test_chunks_change_neither_values_nor_gradients(monkeypatch, name, elements, dtype):
    loss = LOSSES[name]()
    upstream = torch.linspace(-1, 2, T)  # a row at the bound has 0, others what the step's mean gives them

    def value_and_gradient() -> tuple[Tensor, Tensor]:
        logits, reference = logits_and_reference(dtype)
        values = values_of(loss, all_scores(logits, reference))
        return values.detach(), torch.autograd.grad((upstream.to(values) * values).sum(), logits)[0]

    assert chunked(monkeypatch, 1 << 24) == 1
    whole = value_and_gradient()
    assert chunked(monkeypatch, elements) == (T if elements == 1 else 4)
    for one, other in zip(value_and_gradient(), whole, strict=True):
        assert other.abs().max() > 1e-3
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)
    assert whole[0].dtype == torch.promote_types(dtype, torch.float32) and whole[1].dtype == dtype


@pytest.mark.parametrize("name", OF_DISTRIBUTIONS)
def test_logits_in_16_bits_have_the_loss_of_the_same_numbers_in_32(name):
    loss = LOSSES[name]()
    logits, reference = logits_and_reference(torch.bfloat16)
    same = logits.detach().float().requires_grad_()
    values = [values_of(loss, all_scores(*each)) for each in ((logits, reference), (same, reference.float()))]
    torch.testing.assert_close(*values, rtol=0, atol=0)
    gradients = (torch.autograd.grad(each.sum(), leaf)[0] for each, leaf in zip(values, (logits, same), strict=True))
    rounded, exact = gradients
    assert exact.abs().max() > 1e-3
    torch.testing.assert_close(rounded, exact.bfloat16(), rtol=0, atol=0)


def test_no_copy_of_all_logits_in_32_bits_is_made(monkeypatch):
    # 40 tokens of 1000, ten at a time: what a function is given never exceeds a chunk.
    monkeypatch.setattr(chunk_sizes, "CPU_CHUNK_BYTES", 4 * 10_000)
    seen: list[int] = []

    def counted(z: Tensor, token_ids: Tensor, reference: Tensor | None) -> Tensor:
        seen.append(len(z))
        return z.logsumexp(-1)

    logits = random_logits(40, 1000).requires_grad_()
    query = query_of(random_targets(40, 1000), TokenReadout("counted", Role.FORGET, counted))
    values = read_positions(logits, query, DenseLogits(), (), 1000)[40:]
    values.sum().backward()
    assert seen == [10] * 8  # forward, and again backward
    torch.testing.assert_close(logits.grad, logits.detach().softmax(-1))
