"""Hidden states of the retain answers kept where the reference has them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..component import TrainingSetup
from ..data.roles import Role
from ..model.scoring import Scores
from .base import HIDDEN_UNDER_REENTRANT, Loss, Needs, roles


@dataclass(frozen=True)
class RetainHidden(Loss):
    """Mean squared distance of the hidden states from the reference's at one layer, the partner of RMU.

    L = mean_t MSE(h_t, h_ref_t), the MSE a mean over the hidden dimensions, the outer mean over all retain answer
    tokens of the step. Zero, with zero gradient, when the model equals the reference.

    Args:
        layer: decoder blocks below the hidden states, or a share of the depth below 1.

    Paper: Li et al. 2024, https://arxiv.org/abs/2403.03218.
    """

    layer: float = 0.33

    name = "hidden"
    unit = "token"
    on = Role.RETAIN
    needs = Needs(
        roles=roles(Role.RETAIN), logps=False, hidden=roles(Role.RETAIN), reference_hidden=roles(Role.RETAIN)
    )
    incompatible_with = {
        TrainingSetup.CACHED_REFERENCE: "it needs the reference's hidden states, and log-probs are cached",
        **HIDDEN_UNDER_REENTRANT,
    }
    formula = "mean_t MSE(h_t, h_ref_t) at one layer"
    paper = "Li et al. 2024, arXiv:2403.03218"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_layer("layer")

    @property
    def layers(self) -> frozenset[float]:
        return frozenset({self.layer})

    def __call__(self, scores: Scores) -> Tensor:
        retain = scores.retain
        assert retain is not None and retain.reference is not None
        hidden, reference = retain.hidden[self.layer], retain.reference.hidden[self.layer]
        dtype = torch.promote_types(hidden.dtype, torch.float32)
        return (hidden.to(dtype) - reference.to(dtype)).square().mean(-1)
