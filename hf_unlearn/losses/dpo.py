"""Direct preference optimisation of the alternate answer over the forget answer."""

from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import softplus

from ..data.roles import Role
from ..model.scoring import Scores
from .base import Loss, Needs, roles


@dataclass(frozen=True)
class DPO(Loss):
    """DPO with the alternate answer (a refusal, a counterfactual) preferred to the forget answer.

    L = -(2/beta) logsigmoid(beta [(NLL_alt_ref - NLL_alt) - (NLL_ref - NLL)]), sums over a row's answer tokens; mean
    over rows. At the reference it is (2/beta) ln 2. The factor 2/beta puts it on the scale of NPO, which is this loss
    without the alternate's half.

    Args:
        beta: inverse temperature, above 0.

    Paper: Rafailov et al. 2023, https://arxiv.org/abs/2305.18290, eq. 7.
    """

    beta: float = 0.1

    name = "dpo"
    unit = "row"
    on = Role.FORGET
    needs = Needs(
        roles=roles(Role.ALTERNATE),
        reference_logps=roles(Role.FORGET, Role.ALTERNATE),
    )
    formula = "-(2/b) logsigmoid(b [(NLL_alt_ref - NLL_alt) - (NLL_ref - NLL)])"
    paper = "Rafailov et al. 2023, arXiv:2305.18290"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_positive("beta")

    def __call__(self, scores: Scores) -> Tensor:
        forget, alternate = scores.forget, scores.alternate
        assert forget is not None and forget.reference is not None
        assert alternate is not None and alternate.reference is not None
        gain_alternate = alternate.reference.nll_sum() - alternate.nll_sum()
        gain_forget = forget.reference.nll_sum() - forget.nll_sum()
        # -logsigmoid(x) = softplus(-x)
        return 2 / self.beta * softplus(-self.beta * (gain_alternate - gain_forget))
