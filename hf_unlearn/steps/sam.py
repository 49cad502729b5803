"""Sharpness-aware minimisation of the forget loss."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from ..model.gradients import norm
from .base import SIXTEEN_BITS, WHOLE_GRADIENTS, ChangesForgetGradient, Gradients, Weights, copied, restore


@dataclass(frozen=True)
class SAM(ChangesForgetGradient):
    """Sharpness-aware minimisation: the forget gradient where the forget loss is worst nearby.

    g_f <- grad L_forget(theta + rho g / ||g||), g = grad L_forget(theta), the norm over all trainable weights; the
    retain gradient is that at theta. Weights are restored from a copy, bit for bit. With rho 0, or where g is zero, it
    is no SAM. Costs one more forward and backward of the forget rows, and a copy of the trainable weights.

    Args:
        rho: length of the step into the neighbourhood, 0 or above.

    Paper: Fan et al. 2025, https://arxiv.org/abs/2502.05374.
    """

    rho: float = 0.01

    name = "sam"
    incompatible_with = {**WHOLE_GRADIENTS, **SIXTEEN_BITS}
    formula = "g_f <- grad L_forget(theta + rho g_f / ||g_f||)"
    paper = "Fan et al. 2025, arXiv:2502.05374"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_not_negative("rho")

    def forget_gradient(self, gradient: Callable[[], Gradients], weights: Weights, step: int) -> Gradients:
        ascent = gradient()
        length = norm(ascent)
        if self.rho == 0 or not length > 0:
            return ascent
        before = copied(weights)
        try:
            with torch.no_grad():
                for weight, direction in zip(weights, ascent, strict=True):
                    weight.add_((self.rho / length * direction).to(weight.dtype))
            return gradient()
        finally:
            restore(weights, before)
