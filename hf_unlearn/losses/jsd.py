"""Jensen-Shannon divergence: to the alternate answer on the forget side, to the reference on the retain side."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..data.roles import Role
from ..model.scoring import Scores
from .base import WHOLE_REFERENCE_DISTRIBUTIONS, DistributionLoss, Loss, Needs, roles


@dataclass(frozen=True)
class JSD(Loss):
    """Jensen-Shannon divergence between the model and the tokens of the alternate answer.

    L = mean_t JSD(pi_t, onehot(y_alt_t)) = mean_t [log 2 + (p log p - (1 + p) log(1 + p)) / 2] with p = pi_t(y_alt_t),
    over all alternate answer tokens of the step; nats per token, between 0 and log 2.

    Paper: Singh et al. 2025 (JensUn), https://arxiv.org/abs/2509.02820.
    """

    name = "jsd"
    unit = "token"
    on = Role.ALTERNATE
    needs = Needs(roles=roles(Role.ALTERNATE))
    formula = "mean_t JSD(pi_t, onehot(y_alt_t))"
    paper = "Singh et al. 2025, arXiv:2509.02820"

    def __call__(self, scores: Scores) -> Tensor:
        assert scores.alternate is not None
        # The other tokens enter by their sum alone, 1 - p, so no distribution is needed.
        logps = scores.alternate.logps
        p = logps.exp()
        return math.log(2) + (p * logps - (1 + p) * p.log1p()) / 2


@dataclass(frozen=True)
class RetainJSD(DistributionLoss):
    """Jensen-Shannon divergence between the model and the reference at the retain answers.

    L = mean_t JSD(pi_theta, pi_ref), over all retain answer tokens of the step; nats per token, between 0 and log 2,
    and 0 when the model equals the reference.

    Paper: Singh et al. 2025 (JensUn), https://arxiv.org/abs/2509.02820.
    """

    name = "jsd"
    unit = "token"
    on = Role.RETAIN
    needs = Needs(roles=roles(Role.RETAIN), reference_logits=roles(Role.RETAIN))
    incompatible_with = WHOLE_REFERENCE_DISTRIBUTIONS
    formula = "mean_t JSD(pi_theta, pi_ref)"
    paper = "Singh et al. 2025, arXiv:2509.02820"

    def at_positions(self, logits: Tensor, token_ids: Tensor, reference: Tensor | None) -> Tensor:
        assert reference is not None
        return jensen_shannon(logits, reference)

    def grad_logits(self, logits: Tensor, token_ids: Tensor, reference: Tensor | None) -> Tensor:
        assert reference is not None
        return jensen_shannon_grad_logits(logits, reference)


def jensen_shannon(logits: Tensor, reference: Tensor) -> Tensor:
    """JSD(softmax(logits), softmax(reference)): two [t, V] -> [t], nats. Differentiable in `logits`."""
    log_p = logits.log_softmax(-1)
    log_q = reference.to(logits.dtype).log_softmax(-1)
    log_middle = torch.logaddexp(log_p, log_q) - math.log(2)
    return ((log_p.exp() * (log_p - log_middle)).sum(-1) + (log_q.exp() * (log_q - log_middle)).sum(-1)) / 2


def jensen_shannon_grad_logits(logits: Tensor, reference: Tensor) -> Tensor:
    """Its derivative by the logits, p (g - sum_v p g) with g = (log p - log m) / 2: two [t, V] -> [t, V]."""
    log_p = logits.log_softmax(-1)
    log_middle = torch.logaddexp(log_p, reference.to(logits.dtype).log_softmax(-1)) - math.log(2)
    g, p = log_middle.neg_().add_(log_p).div_(2), log_p.exp_()
    return g.sub_((p * g).sum(-1, keepdim=True)).mul_(p)
