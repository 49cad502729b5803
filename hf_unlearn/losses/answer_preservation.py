"""Real answers kept above refusals on the retain rows."""

from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import softplus

from ..data.roles import Role
from ..model.scoring import Scores
from .base import Loss, Needs, roles


@dataclass(frozen=True)
class AnswerPreservation(Loss):
    """Answer preservation: on retain prompts the real answer stays preferred to a refusal.

    L = -(1/beta) logsigmoid(beta (nll_alt - nll)), nll per token, nll_alt that of the retain row's `alternate` (the
    refusal that the forget rows are taught); mean over rows. It keeps a model from refusing everything.

    Args:
        beta: inverse temperature, above 0.

    Paper: Yuan et al. 2024, https://arxiv.org/abs/2410.08109.
    """

    beta: float = 0.1

    name = "answer_preservation"
    unit = "row"
    on = Role.RETAIN
    needs = Needs(roles=roles(Role.RETAIN, Role.RETAIN_ALTERNATE))
    formula = "-(1/b) logsigmoid(b (nll_alt - nll))"
    paper = "Yuan et al. 2024, arXiv:2410.08109"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_positive("beta")

    def __call__(self, scores: Scores) -> Tensor:
        assert scores.retain is not None and scores.retain_alternate is not None
        margin = scores.retain_alternate.nll_per_token() - scores.retain.nll_per_token()
        # -logsigmoid(x) = softplus(-x)
        return softplus(-self.beta * margin) / self.beta
