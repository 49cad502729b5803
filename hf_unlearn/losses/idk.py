"""Relabelling: learn another answer to the forget prompts."""

from dataclasses import dataclass

from torch import Tensor

from ..data.roles import Role
from ..model.scoring import Scores
from .base import Loss, Needs, roles


@dataclass(frozen=True)
class IDK(Loss):
    """Cross-entropy of the alternate answer ("I don't know", a refusal, a counterfactual) under the forget prompt.

    L = mean_t -lp_alt_t, over all alternate answer tokens of the step; nats per token.

    Paper: Maini et al. 2024 (TOFU), https://arxiv.org/abs/2401.06121, section 4.1.
    """

    name = "idk"
    unit = "token"
    on = Role.ALTERNATE
    needs = Needs(roles=roles(Role.ALTERNATE))
    formula = "mean_t -lp_alt_t"
    paper = "Maini et al. 2024, arXiv:2401.06121"

    def __call__(self, scores: Scores) -> Tensor:
        assert scores.alternate is not None
        return -scores.alternate.logps
