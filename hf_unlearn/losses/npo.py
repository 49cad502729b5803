"""Negative preference optimisation."""

from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import softplus

from ..data.roles import Role
from ..model.scoring import Scores
from .base import Loss, Needs, roles


@dataclass(frozen=True)
class NPO(Loss):
    """Negative preference optimisation: ascent that fades as a row moves away from the reference.

    L = (2/beta) softplus(-beta (NLL - NLL_ref)), NLL the sum over a row's answer tokens; mean over rows. At the
    reference it is (2/beta) ln 2. Its pull is spent a few 1/beta nats past NLL_ref, so beta should shrink as answers
    (or the model's confidence) grow.

    Args:
        beta: inverse temperature, above 0.

    Paper: Zhang et al. 2024, https://arxiv.org/abs/2404.05868, eq. 3.
    """

    beta: float = 0.1

    name = "npo"
    unit = "row"
    on = Role.FORGET
    needs = Needs(reference_logps=roles(Role.FORGET))
    formula = "(2/b) softplus(-b (NLL - NLL_ref))"
    paper = "Zhang et al. 2024, arXiv:2404.05868"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_positive("beta")

    def __call__(self, scores: Scores) -> Tensor:
        assert scores.forget is not None and scores.forget.reference is not None
        excess = scores.forget.nll_sum() - scores.forget.reference.nll_sum()
        return 2 / self.beta * softplus(-self.beta * excess)
