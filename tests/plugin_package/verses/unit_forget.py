"""A step wrapper: the forget gradient at length 1."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from hf_unlearn.steps import ChangesForgetGradient
from hf_unlearn.steps.base import Gradients, Weights


@dataclass(frozen=True)
class UnitForget(ChangesForgetGradient):
    """g_f <- g_f / ||g_f||, the norm over all trainable weights; a gradient of zero stays."""

    name = "unit_forget"
    formula = "g_f <- g_f / ||g_f||"

    def forget_gradient(self, gradient: Callable[[], Gradients], weights: Weights, step: int) -> Gradients:
        ascent = gradient()
        length = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(part) for part in ascent]))
        return [part / length for part in ascent] if length > 0 else ascent
