"""Gradient ascent weighted by the model's confidence."""

from dataclasses import dataclass

from torch import Tensor

from ..data.roles import Role
from ..model.scoring import Scores
from .base import Loss


@dataclass(frozen=True)
class WGA(Loss):
    """Weighted gradient ascent: tokens that the model has forgotten already pull less.

    L = mean_t stopgrad(p_t^beta) lp_t, over all forget answer tokens of the step; nats per token. The weight fades
    with the token's probability, which keeps the ascent from running away. With beta 0 it is grad_ascent.

    Args:
        beta: power of the weight, 0 or above.

    Paper: Wang et al. 2025, https://arxiv.org/abs/2502.19301.
    """

    beta: float = 1.0

    name = "wga"
    unit = "token"
    on = Role.FORGET
    formula = "mean_t stopgrad(p_t^b) lp_t"
    paper = "Wang et al. 2025, arXiv:2502.19301"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_not_negative("beta")

    def __call__(self, scores: Scores) -> Tensor:
        assert scores.forget is not None
        logps = scores.forget.logps
        return (self.beta * logps.detach()).exp() * logps
