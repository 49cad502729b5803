"""NPO without a reference, length-normalised."""

import math
from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import softplus

from ..data.roles import Role
from ..model.scoring import Scores
from .base import Loss


@dataclass(frozen=True)
class SimNPO(Loss):
    """SimNPO: NPO with the nll per token in place of the log-ratio to a reference.

    L = (2/beta) softplus(-beta (nll - delta)), nll the mean over a row's answer tokens; mean over rows.

    Args:
        beta: inverse temperature, above 0. The papers use 4.5 (delta 0) or 3.5 (delta 1) with forget_weight 0.125.
        delta: nats per token by which the pull is shifted.

    Paper: Fan et al. 2024, https://arxiv.org/abs/2410.07163, eq. 5.
    """

    beta: float = 4.5
    delta: float = 0.0

    name = "simnpo"
    unit = "row"
    on = Role.FORGET
    formula = "(2/b) softplus(-b (nll - d))"
    paper = "Fan et al. 2024, arXiv:2410.07163"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_positive("beta")
        self.require("delta", math.isfinite(self.delta), "finite")

    def __call__(self, scores: Scores) -> Tensor:
        assert scores.forget is not None
        return 2 / self.beta * softplus(-self.beta * (scores.forget.nll_per_token() - self.delta))
