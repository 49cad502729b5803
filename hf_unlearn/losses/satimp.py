"""Gradient ascent weighted by saturation and importance."""

from dataclasses import dataclass

from torch import Tensor

from ..data.roles import Role
from ..model.scoring import Scores
from .base import Loss


@dataclass(frozen=True)
class SatImp(Loss):
    """SatImp: ascent on tokens that are neither forgotten already nor known with certainty.

    L = mean_t stopgrad(p_t^beta1 (1 - p_t)^beta2) lp_t, over all forget answer tokens of the step; nats per token. The
    first factor is the weight by saturation, the second by importance. The paper weighs the forget side by 0.1.

    Args:
        beta1: power of p_t, 0 or above.
        beta2: power of 1 - p_t, 0 or above.

    Paper: Yang et al. 2025, https://arxiv.org/abs/2505.11953.
    """

    beta1: float = 5.0
    beta2: float = 1.0

    name = "satimp"
    unit = "token"
    on = Role.FORGET
    formula = "mean_t stopgrad(p_t^b1 (1 - p_t)^b2) lp_t"
    paper = "Yang et al. 2025, arXiv:2505.11953"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_not_negative("beta1", "beta2")

    def __call__(self, scores: Scores) -> Tensor:
        assert scores.forget is not None
        logps = scores.forget.logps
        fixed = logps.detach()
        # 1 - p = -expm1(lp), which keeps its digits where p is near 1.
        return (self.beta1 * fixed).exp() * (-fixed.expm1()).clamp(min=0).pow(self.beta2) * logps
