"""Flat logits at the forget answers."""

from dataclasses import dataclass

from torch import Tensor

from ..data.roles import Role
from .base import DistributionLoss


@dataclass(frozen=True)
class LogitMargin(DistributionLoss):
    """Logit-margin flattening: the highest logit is drawn down to the mean logit.

    L = mean_t (max_v z_t(v) - mean_v z_t(v))^2, over all forget answer tokens of the step; zero where all logits are
    equal. The paper sets the weights of both sides by a primal-dual rule (`weighting="primal_dual"`).

    Paper: Entesari et al. 2025 (PDU), https://arxiv.org/abs/2506.05314.
    """

    name = "logit_margin"
    unit = "token"
    on = Role.FORGET
    formula = "mean_t (max_v z_t - mean_v z_t)^2"
    paper = "Entesari et al. 2025, arXiv:2506.05314"

    def at_positions(self, logits: Tensor, token_ids: Tensor, reference: Tensor | None) -> Tensor:
        return squared_margin(logits)


def squared_margin(logits: Tensor) -> Tensor:
    """(max_v z - mean_v z)^2: [t, V] -> [t]."""
    return (logits.amax(-1) - logits.mean(-1)).square()
