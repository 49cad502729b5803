"""Cross-entropy towards the model's own distribution without the right token."""

import math
from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import cross_entropy

from ..data.roles import Role
from ..distributions import per_position
from ..scoring import Scores
from .base import Loss, Needs, roles


@dataclass(frozen=True)
class CEU(Loss):
    """Cross-entropy unlearning: what the model would say if it could not say the right token.

    L = mean_t CE(stopgrad softmax(z with z_y = -inf), softmax(z)), over all forget answer tokens of the step; nats per
    token. The paper uses it without a retain loss.

    Paper: Yang 2025, https://arxiv.org/abs/2503.01224.
    """

    name = "ceu"
    unit = "token"
    on = Role.FORGET
    needs = Needs(logits=roles(Role.FORGET))
    formula = "mean_t CE(stopgrad softmax(z with z_y = -inf), softmax(z))"
    paper = "Yang 2025, arXiv:2503.01224"

    def __call__(self, scores: Scores) -> Tensor:
        forget = scores.forget
        assert forget is not None and forget.logits is not None
        return per_position(_position, forget.logits, forget.token_ids)


def _position(logits: Tensor, targets: Tensor) -> Tensor:
    return cross_entropy(logits, without_token(logits.detach(), targets), reduction="none")


def without_token(logits: Tensor, targets: Tensor) -> Tensor:
    """softmax(z with z_y = -inf): [t, V], [t] -> [t, V]; the right token's share is exactly 0."""
    return logits.scatter(-1, targets[:, None], -math.inf).softmax(-1)
