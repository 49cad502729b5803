"""The inverted hinge loss."""

import math
from dataclasses import dataclass

from torch import Tensor

from ..data.roles import Role
from .base import DistributionLoss


@dataclass(frozen=True)
class IHL(DistributionLoss):
    """Inverted hinge loss (LoKU): the right token gives way to the next best one, and the rest stay as they are.

    L = mean_t [1 + p_t(y_t) - max_{v != y_t} p_t(v)], over all forget answer tokens of the step; between 0 and 2.

    Paper: Cha et al. 2024, https://arxiv.org/abs/2408.06621.
    """

    name = "ihl"
    unit = "token"
    on = Role.FORGET
    formula = "mean_t 1 + p_t(y_t) - max_{v != y_t} p_t(v)"
    paper = "Cha et al. 2024, arXiv:2408.06621"

    def at_positions(self, logits: Tensor, token_ids: Tensor, reference: Tensor | None) -> Tensor:
        return inverted_hinge(logits, token_ids)


def inverted_hinge(logits: Tensor, targets: Tensor) -> Tensor:
    """1 + p(y) - max_{v != y} p(v): [t, V], [t] -> [t]."""
    probabilities = logits.softmax(-1)
    right = probabilities.gather(-1, targets[:, None]).squeeze(-1)
    others = probabilities.scatter(-1, targets[:, None], -math.inf)
    return 1 + right - others.amax(-1)
