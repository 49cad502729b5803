"""Cross-entropy towards the model's own distribution without the right token."""

import math
from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import cross_entropy

from ..data.roles import Role
from .base import DistributionLoss


@dataclass(frozen=True)
class CEU(DistributionLoss):
    """Cross-entropy unlearning: what the model would say if it could not say the right token.

    L = mean_t CE(stopgrad softmax(z with z_y = -inf), softmax(z)), over all forget answer tokens of the step; nats per
    token. The paper uses it without a retain loss.

    Paper: Yang 2025, https://arxiv.org/abs/2503.01224.
    """

    name = "ceu"
    unit = "token"
    on = Role.FORGET
    formula = "mean_t CE(stopgrad softmax(z with z_y = -inf), softmax(z))"
    paper = "Yang 2025, arXiv:2503.01224"

    def at_positions(self, logits: Tensor, token_ids: Tensor, reference: Tensor | None) -> Tensor:
        return cross_entropy(logits, without_token(logits.detach(), token_ids), reduction="none")

    def grad_logits(self, logits: Tensor, token_ids: Tensor, reference: Tensor | None) -> Tensor:
        return logits.softmax(-1).sub_(without_token(logits, token_ids))


def without_token(logits: Tensor, targets: Tensor) -> Tensor:
    """softmax(z with z_y = -inf): [t, V], [t] -> [t, V]; the right token's share is exactly 0."""
    return logits.scatter(-1, targets[:, None], -math.inf).softmax(-1)
