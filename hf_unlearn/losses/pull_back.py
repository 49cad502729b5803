"""Forget rows past their bound pulled back to it: what `forget_bound_sides="both"` adds to the forget side."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import huber_loss

from ..data.roles import Role
from ..model.scoring import Scores
from .base import Loss


@dataclass(frozen=True)
class PullBack(Loss):
    """The other side of the row bound: rows that have gone past it come back.

    L = mean_i Huber_delta(max(nll_i - bound_i, 0)), nll_i the mean over a row's answer tokens, in nats per token; mean
    over all forget rows of the step, those below the bound being zero. Huber_delta(x) is x^2 / 2 up to delta and
    delta (x - delta / 2) above, so that a row pulls with a slope of at most delta, however far it has gone. Without a
    bound it is zero. It is no loss to choose by name: no row would be pushed.

    Args:
        delta: nats per token from which the pull grows no more, above 0.
    """

    delta: float = 0.5

    name = "pull_back"
    unit = "row"
    on = Role.FORGET
    two_sided = True
    formula = "Huber_d(max(nll - bound, 0))"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_positive("delta")

    def __call__(self, scores: Scores) -> Tensor:
        forget = scores.rows(Role.FORGET)
        nll = forget.nll_per_token()
        bound = math.inf if forget.bound is None else forget.bound
        past = (nll - bound).clamp(min=0)
        return huber_loss(past, torch.zeros_like(past), reduction="none", delta=self.delta)
