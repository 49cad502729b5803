"""A loss: ascent that saturates."""

from dataclasses import dataclass

import torch
from torch import Tensor

from hf_unlearn.losses import Loss, Role, Scores


@dataclass(frozen=True)
class SaturatingAscent(Loss):
    """Ascent that fades as a row's NLL grows: L = -c (1 - exp(-NLL / c)), mean over rows.

    Args:
        scale: c, nats, above 0.
    """

    scale: float = 20.0

    name = "saturating_ascent"
    unit = "row"
    on = Role.FORGET
    formula = "-c (1 - exp(-NLL / c))"
    paper = "Writer 2026, arXiv:2601.00001"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_positive("scale")

    def __call__(self, scores: Scores) -> Tensor:
        assert scores.forget is not None
        return -self.scale * (1 - torch.exp(-scores.forget.nll_sum() / self.scale))
