"""f-divergence between the alternate and the forget answers, from forget data alone."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..data.roles import Role
from ..model.scoring import RowScores, Scores
from .base import Loss, Needs, roles


@dataclass(frozen=True)
class FLAT(Loss):
    """FLAT with the total variation: the alternate answer's probability up, the forget answer's down.

    L = -g(P(alt)) + g(P(forget)), P = mean_t p_t over the answer tokens of a row, g(v) = tanh(v) / 2; mean over rows.
    Between -tanh(1)/2 and tanh(1)/2. It uses forget data only: combine it with `retain_loss="none"` to follow the
    paper.

    Paper: Wang et al. 2024, https://arxiv.org/abs/2410.11143.
    """

    name = "flat"
    unit = "row"
    on = Role.FORGET
    needs = Needs(roles=roles(Role.ALTERNATE))
    formula = "-g(P(alt)) + g(P(forget)), P = mean_t p_t, g(v) = tanh(v)/2"
    paper = "Wang et al. 2024, arXiv:2410.11143"

    def __call__(self, scores: Scores) -> Tensor:
        assert scores.forget is not None and scores.alternate is not None
        return _variational(_mean_probability(scores.forget)) - _variational(_mean_probability(scores.alternate))


def _variational(probability: Tensor) -> Tensor:
    return torch.tanh(probability) / 2


def _mean_probability(rows: RowScores) -> Tensor:
    """P = mean_t p_t of each row: [R]."""
    return torch.segment_reduce(rows.logps.exp(), "mean", lengths=rows.lengths, unsafe=True)
