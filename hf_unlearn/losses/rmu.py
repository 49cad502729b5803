"""Hidden states of the forget answers steered to a fixed random direction."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..data.roles import Role
from ..model.scoring import Scores
from .base import HIDDEN_UNDER_REENTRANT, Loss, Needs, roles


@dataclass(frozen=True)
class RMU(Loss):
    """Representation misdirection for unlearning.

    L = mean_t MSE(h_t, c u), h_t the hidden states at one layer that answer token t is predicted from, u a fixed unit
    vector; the MSE is a mean over the hidden dimensions, the outer mean over all forget answer tokens of the step. Its
    partner is the retain loss "hidden" at the same layer, with a weight of 1 to 1200. Without `forget_nll_bound` and
    stop rules over training rows nothing reads log-probs, and the forward ends at the layer.

    Args:
        c: length of the target, above 0; 2 to 20, larger than the model's own hidden states.
        layer: decoder blocks below the hidden states, or a share of the depth below 1.
        seed: of u, uniform on [0, 1]^H and normalised: the same on every rank and after a resume.

    Paper: Li et al. 2024, https://arxiv.org/abs/2403.03218.
    """

    c: float = 6.5
    layer: float = 0.33
    seed: int = 0

    name = "rmu"
    unit = "token"
    on = Role.FORGET
    needs = Needs(logps=False, hidden=roles(Role.FORGET))
    incompatible_with = HIDDEN_UNDER_REENTRANT
    formula = "mean_t MSE(h_t, c u), u a fixed random unit vector"
    paper = "Li et al. 2024, arXiv:2403.03218"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_positive("c")
        self.require_layer("layer")
        self.require("seed", 0 <= self.seed < 1 << 64, "a whole number from 0 to 2**64 - 1")

    @property
    def layers(self) -> frozenset[float]:
        return frozenset({self.layer})

    def target(self, size: int) -> Tensor:
        """c u for hidden states of a size: [H], fp32; made on the CPU, where a seed gives the same on any machine."""
        direction = torch.rand(size, generator=torch.Generator().manual_seed(self.seed), dtype=torch.float32)
        return self.c * direction / direction.norm()

    def __call__(self, scores: Scores) -> Tensor:
        assert scores.forget is not None
        hidden = scores.forget.hidden[self.layer]
        hidden = hidden.to(torch.promote_types(hidden.dtype, torch.float32))
        return (hidden - self.target(hidden.shape[-1]).to(hidden)).square().mean(-1)
