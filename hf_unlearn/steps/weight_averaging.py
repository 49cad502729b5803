"""The average of the weights over the steps."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim.swa_utils import get_swa_multi_avg_fn

from .base import FollowsStep, KeepsState, SetsFinalWeights, State, Weights, restore


@dataclass(frozen=True)
class WeightAveraging(KeepsState, FollowsStep, SetsFinalWeights):
    """Stochastic weight averaging: the run ends with the mean of the weights after its steps.

    theta_end = (1/N) sum theta_s over the steps s = start, start + every, ...; training itself goes on from the
    weights of the last step, and so do checkpoints and evaluations during the run. A run that ends before `start`
    keeps its last weights. Costs a copy of the trainable weights.

    Args:
        start: first step that counts, a whole number of at least 1.
        every: steps between two that count, a whole number of at least 1.

    Paper: Fan et al. 2025, https://arxiv.org/abs/2502.05374; Izmailov et al. 2018, https://arxiv.org/abs/1803.05407.
    """

    start: int = 1
    every: int = 1

    name = "weight_averaging"
    formula = "theta_end = mean of theta over the steps"
    paper = "Fan et al. 2025, arXiv:2502.05374"

    def __post_init__(self) -> None:
        super().__post_init__()
        for argument in ("start", "every"):
            self.require(argument, getattr(self, argument) >= 1, "a whole number of at least 1")

    def begin(self, weights: Weights) -> State:
        # counts: steps taken, and how many of them are in the average.
        return {"average": _wide_copies(weights), "counts": [torch.zeros(2, dtype=torch.long)]}

    def after_step(self, state: State, weights: Weights) -> None:
        counts = state["counts"][0]
        counts[0] += 1
        steps, averaged = counts.tolist()
        if steps < self.start or (steps - self.start) % self.every:
            return
        present = _wide_copies(weights)
        if averaged == 0:
            state["average"] = present
        else:
            get_swa_multi_avg_fn()(state["average"], present, averaged)
        counts[1] += 1

    def finish(self, state: State, weights: Weights) -> None:
        if state["counts"][0][1] > 0:
            restore(weights, state["average"])


def _wide_copies(weights: Weights) -> list[Tensor]:
    # In fp32 at least: in 16 bits a mean of many stops moving.
    return [weight.detach().to(torch.promote_types(weight.dtype, torch.float32), copy=True) for weight in weights]
