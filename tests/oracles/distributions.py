"""Naive oracles of the losses on whole distributions, one answer token at a time. Not the package's, nor for training.

The manner and the rows are those of `oracles.naive`. At each answer token y the model gives logits z over the V
tokens of the vocabulary and the distribution pi = softmax(z); every loss here is the mean over all answer tokens of
all its rows, pooled, so prompt and padding count for nothing.

`active` is the row bound of `oracles.naive`: one bool a forget row, an inactive row's tokens are detached and stay in
the mean.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from oracles.naive import Rows, _kept, _under_reference, answer_logits, shift_check

# --- Forget losses ---


def max_entropy(model: nn.Module, forget_rows: Rows, active: list[bool] | None = None) -> Tensor:
    """mean_t KL(uniform || pi) = sum_v (1/V) (log(1/V) - log pi(v)), nats (Yuan et al., arXiv 2410.08109)."""

    def divergence(logits: Tensor, target: int) -> Tensor:
        uniform = 1 / len(logits)
        return (uniform * (math.log(uniform) - torch.log_softmax(logits, dim=-1))).sum()

    return _mean_over_tokens(model, forget_rows, divergence, active)


def undial(
    model: nn.Module, reference: nn.Module, forget_rows: Rows, beta: float, active: list[bool] | None = None
) -> Tensor:
    """mean_t cross-entropy of pi against `undial_target` of the reference's logits (Dong et al., arXiv 2402.10052)."""
    terms = []
    for row, kept in zip(forget_rows, _kept(forget_rows, active), strict=True):
        logits_ref = _under_reference(answer_logits, reference, row)
        for (_, token), logits, before in zip(shift_check(row), answer_logits(model, row), logits_ref, strict=True):
            term = cross_entropy(undial_target(before, token, beta), logits)
            terms.append(term if kept else term.detach())
    return torch.stack(terms).mean()


def ceu(model: nn.Module, forget_rows: Rows, active: list[bool] | None = None) -> Tensor:
    """mean_t cross-entropy of pi against `ceu_target` of its own logits, held constant (Yang, arXiv 2503.01224)."""

    def term(logits: Tensor, target: int) -> Tensor:
        return cross_entropy(ceu_target(logits.detach(), target), logits)

    return _mean_over_tokens(model, forget_rows, term, active)


def ihl(model: nn.Module, forget_rows: Rows, active: list[bool] | None = None) -> Tensor:
    """mean_t 1 + pi(y) - max_{v != y} pi(v), in [0, 2] (Cha et al., LoKU, arXiv 2408.06621)."""

    def hinge(logits: Tensor, target: int) -> Tensor:
        probabilities = torch.softmax(logits, dim=-1)
        others = torch.cat([probabilities[:target], probabilities[target + 1 :]])
        return 1 + probabilities[target] - others.max()

    return _mean_over_tokens(model, forget_rows, hinge, active)


def logit_margin(model: nn.Module, forget_rows: Rows, active: list[bool] | None = None) -> Tensor:
    """mean_t (max_v z(v) - mean_v z(v))^2, squared logits, whatever the answer token (PDU, arXiv 2506.05314)."""
    return _mean_over_tokens(model, forget_rows, lambda logits, _: (logits.max() - logits.mean()) ** 2, active)


# --- Retain losses ---


def retain_jsd(model: nn.Module, reference: nn.Module, retain_rows: Rows) -> Tensor:
    """mean_t JSD(pi_theta, pi_ref), nats, in [0, log 2]."""
    divergences = []
    for row in retain_rows:
        reference_logits = _under_reference(answer_logits, reference, row)
        for logits, logits_ref in zip(answer_logits(model, row), reference_logits, strict=True):
            divergences.append(
                jensen_shannon(torch.log_softmax(logits, dim=-1), torch.log_softmax(logits_ref, dim=-1))
            )
    return torch.stack(divergences).mean()


# --- One token's distributions ---


def jensen_shannon(first: Tensor, second: Tensor) -> Tensor:
    """KL(p || m) / 2 + KL(q || m) / 2, m = (p + q) / 2, 0 log 0 = 0: a scalar in nats from log p and log q, [V] each.

    Logarithms come in because the smallest probabilities underflow: written with p / m, their gradient is NaN.
    """

    def to_the_mixture(logps: Tensor, others: Tensor) -> Tensor:
        met = logps > -math.inf  # elsewhere p = 0: no term, and no gradient of 0 times minus infinity
        log_mixture = torch.logaddexp(logps[met], others[met]) - math.log(2)
        return (logps[met].exp() * (logps[met] - log_mixture)).sum()

    return (to_the_mixture(first, second) + to_the_mixture(second, first)) / 2


def undial_target(logits_ref: Tensor, token: int, beta: float) -> Tensor:
    """softmax(z_ref - beta onehot(y)): [V], the reference's distribution with the answer token pushed down."""
    pushed = logits_ref.clone()
    pushed[token] -= beta
    return torch.softmax(pushed, dim=-1)


def ceu_target(logits: Tensor, token: int) -> Tensor:
    """softmax(z with z_y = -inf): [V], the model's own distribution given that the answer token is impossible."""
    barred = logits.clone()
    barred[token] = -math.inf
    return torch.softmax(barred, dim=-1)


def cross_entropy(target: Tensor, logits: Tensor) -> Tensor:
    """-sum_v target(v) log pi(v), nats, from a target distribution [V] and logits [V]."""
    return -(target * torch.log_softmax(logits, dim=-1)).sum()


def _mean_over_tokens(
    model: nn.Module, rows: Rows, term: Callable[[Tensor, int], Tensor], active: list[bool] | None
) -> Tensor:
    """The mean of `term(logits [V], answer token)` over the answer tokens of all rows, pooled."""
    terms = []
    for row, kept in zip(rows, _kept(rows, active), strict=True):
        for (_, token), logits in zip(shift_check(row), answer_logits(model, row), strict=True):
            value = term(logits, token)
            terms.append(value if kept else value.detach())
    return torch.stack(terms).mean()
