"""Gradient ascent on the forget answers."""

from dataclasses import dataclass

from torch import Tensor

from ..data.roles import Role
from ..model.scoring import Scores
from .base import Loss


@dataclass(frozen=True)
class GradientAscent(Loss):
    """Gradient ascent: the cross-entropy of the forget answers with its sign turned.

    L = mean_t lp_t (= -CE), over all forget answer tokens of the step; nats per token.
    It has no lower end: leave the row bound on.

    Paper: Jang et al. 2022, https://arxiv.org/abs/2210.01504, eq. 2.
    """

    name = "grad_ascent"
    unit = "token"
    on = Role.FORGET
    formula = "mean_t lp_t"
    paper = "Jang et al. 2022, arXiv:2210.01504"

    def __call__(self, scores: Scores) -> Tensor:
        assert scores.forget is not None
        return scores.forget.logps
