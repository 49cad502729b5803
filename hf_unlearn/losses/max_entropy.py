"""The uniform distribution as the target of the forget answers."""

import math
from dataclasses import dataclass

from torch import Tensor

from ..data.roles import Role
from .base import DistributionLoss


@dataclass(frozen=True)
class MaxEntropy(DistributionLoss):
    """Maximum entropy: the model's distribution at the forget answers is drawn to the uniform one.

    L = mean_t KL(Uniform || pi_t) = mean_t [-(1/V) sum_v log pi_t(v) - log V], over all forget answer tokens of the
    step; nats per token. Zero, with zero gradient, at the uniform distribution.

    Paper: Yuan et al. 2024, https://arxiv.org/abs/2410.08109.
    """

    name = "max_entropy"
    unit = "token"
    on = Role.FORGET
    formula = "mean_t KL(Uniform || pi_t)"
    paper = "Yuan et al. 2024, arXiv:2410.08109"

    def at_positions(self, logits: Tensor, token_ids: Tensor, reference: Tensor | None) -> Tensor:
        return kl_from_uniform(logits)

    def grad_logits(self, logits: Tensor, token_ids: Tensor, reference: Tensor | None) -> Tensor:
        return logits.softmax(-1).sub_(1 / logits.shape[-1])


def kl_from_uniform(logits: Tensor) -> Tensor:
    """KL(Uniform || softmax(logits)): [t, V] -> [t], nats."""
    # -(1/V) sum_v log pi(v) = logsumexp(z) - mean(z)
    return logits.logsumexp(-1) - logits.mean(-1) - math.log(logits.shape[-1])
