"""Cross-entropy on the retain answers."""

from dataclasses import dataclass

from torch import Tensor

from ..data.roles import Role
from ..model.scoring import Scores
from .base import Loss, Needs, roles


@dataclass(frozen=True)
class RetainNLL(Loss):
    """Cross-entropy of the retain answers ("gradient difference" when the forget loss is grad_ascent).

    L = mean_t -lp_t, over all retain answer tokens of the step; nats per token.

    Paper: Liu et al. 2022, https://arxiv.org/abs/2203.12817.
    """

    name = "nll"
    unit = "token"
    on = Role.RETAIN
    needs = Needs(roles=roles(Role.RETAIN))
    formula = "mean_t -lp_t"
    paper = "Liu et al. 2022, arXiv:2203.12817"

    def __call__(self, scores: Scores) -> Tensor:
        assert scores.retain is not None
        return -scores.retain.logps
