"""Forgetting that holds when hidden states are pushed back towards what is to be forgotten."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..component import TrainingSetup
from ..model.hidden_states import layer_problem
from .base import WHOLE_GRADIENTS, Attacked, PerturbsHiddenStates


@dataclass(frozen=True)
class LatentAdversarial(PerturbsHiddenStates):
    """Latent adversarial training: the forget loss under the worst small perturbation of one layer's hidden states.

    Before each forward of forget rows, projected gradient descent from zero finds delta, added to the hidden states of
    every token of the forget rows, that lowers the NLL of the forget answers: so many steps of size
    2.5 epsilon / steps along the normalised gradient of each position, each position projected onto ||delta|| <=
    epsilon. The forget loss is then trained with delta in place; retain rows, alternates and the reference never see
    it. The logged forget NLL, the row bound and stop rules over training rows see the attacked rows. With epsilon 0 it
    is no attack. Costs `steps` more forwards and backwards of the forget rows.

    Args:
        epsilon: radius of the ball around each position's hidden states (L2), 0 or above.
        steps: of the attack, a whole number of at least 1.
        layer: decoder blocks below the hidden states, or a share of the depth below 1.

    Paper: Sheshadri et al. 2024, https://arxiv.org/abs/2407.15549.
    """

    epsilon: float = 2.0
    steps: int = 16
    layer: float = 0.33

    name = "latent_adversarial"
    incompatible_with = {
        **WHOLE_GRADIENTS,
        TrainingSetup.REENTRANT: "torch cannot differentiate through it by hidden states alone",
    }
    formula = "L_forget with h + delta, delta = argmin_{||delta_t|| <= eps} NLL of the forget answers"
    paper = "Sheshadri et al. 2024, arXiv:2407.15549"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_not_negative("epsilon")
        self.require("steps", self.steps >= 1, "a whole number of at least 1")
        problem = layer_problem(self.layer)
        if problem is not None:
            raise self.argument_error("layer", problem)

    @property
    def attack_layer(self) -> float | None:
        return self.layer if self.epsilon > 0 else None

    def attack(self, nll_sum: Attacked, start: Tensor) -> Tensor:
        delta, size = start, 2.5 * self.epsilon / self.steps
        for _ in range(self.steps):
            delta = delta.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(nll_sum(delta), delta)
            # A position that no answer token depends on has no gradient, and stays.
            moved = delta.detach() - size * torch.nn.functional.normalize(gradient, dim=-1)
            delta = moved * (self.epsilon / moved.norm(dim=-1, keepdim=True).clamp(min=1e-30)).clamp(max=1)
        return delta.detach()
