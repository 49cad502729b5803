"""Learn answers to other questions under the forget prompts."""

from dataclasses import dataclass

from torch import Tensor

from ..data.roles import Role
from ..model.scoring import Scores
from .base import Loss, Needs, roles


@dataclass(frozen=True)
class RandomMismatch(Loss):
    """Cross-entropy of k answers drawn at random from the retain set, each placed under the forget prompt.

    L = mean_t -lp_t, over all answer tokens of the drawn rows of the step; nats per token. The draw is fresh for every
    row and epoch; the prompt is not trained.

    Args:
        k: answers drawn per forget row, a whole number of at least 1. Each costs a row of the batch.

    Paper: Yao et al. 2023, https://arxiv.org/abs/2310.10683, eq. 5.
    """

    k: int = 5

    name = "random_mismatch"
    unit = "token"
    on = Role.MISMATCH
    needs = Needs(roles=roles(Role.MISMATCH))
    formula = "mean_t -lp_t of k random retain answers under the forget prompt"
    paper = "Yao et al. 2023, arXiv:2310.10683"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("k", self.k >= 1, "a whole number of at least 1")

    @property
    def mismatches(self) -> int:
        return self.k

    def __call__(self, scores: Scores) -> Tensor:
        assert scores.mismatch is not None
        return -scores.mismatch.logps
