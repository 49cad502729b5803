"""What a step wrapper is: hooks around one optimizer step, of gradients and weights. It runs nothing."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..component import Component, IncompatibleSetups, TrainingSetup

# One tensor for each trainable weight, in the weights' order.
Gradients = list[Tensor]
Weights = Sequence[nn.Parameter]
# What a wrapper keeps from step to step, by name.
State = dict[str, list[Tensor]]
# delta [rows, L, H] -> the NLL of the forget answers under it, summed over their tokens: a scalar, nats
Attacked = Callable[[Tensor], Tensor]

_NO_GRADIENTS = (
    "the engine averages, partitions and applies gradients inside backward, where no wrapper can change them"
)
# sam and random_smoothing move the weights by far less than 16 bits can add to most of them.
SIXTEEN_BITS: IncompatibleSetups = {
    TrainingSetup.SIXTEEN_BITS: "the step away from the weights rounds to nothing for most of them; "
    "load the model in float32"
}
WHOLE_GRADIENTS: IncompatibleSetups = {
    TrainingSetup.ZERO_1_2: _NO_GRADIENTS,
    TrainingSetup.ZERO_3: _NO_GRADIENTS,
    TrainingSetup.FSDP: "gradients and weights are split over ranks, "
    "and norms, masks and inner products are of whole ones",
}


@dataclass(frozen=True)
class StepWrapper(Component):
    """Changes what one optimizer step does; composes with any loss and with the other wrappers.

    The order of a step is fixed, whatever the order of the wrappers: attacks inside each forward of forget rows, then
    the forget gradient (the first wrapper innermost), its reconciliation with the retain gradient, their sum, masks,
    the optimizer, what follows it. Gradients are those of a whole optimizer step: all accumulation steps, all ranks.

    Class attributes, beside those of every component: `splits`, whether the gradients of both sides are needed apart,
    each from a forward of its own rows; `measures`, whether `begin` reads the gradients of the whole training set;
    `reads_retain`, whether it is idle without a retain side; `kept`, the names of its state that checkpoints hold, the
    rest being made again by `begin`.
    """

    splits: ClassVar[bool] = False
    measures: ClassVar[bool] = False
    reads_retain: ClassVar[bool] = False
    kept: ClassVar[tuple[str, ...]] = ()
    incompatible_with: ClassVar[IncompatibleSetups] = WHOLE_GRADIENTS

    @property
    def attack_layer(self) -> float | None:
        """The layer whose hidden states it perturbs in forwards of forget rows, or None."""
        return None

    def begin(self, weights: Weights, sides: Callable[[], tuple[Gradients, Gradients]]) -> State:
        """Before the first step. `sides()` gives the forget and the retain gradient of the whole training set."""
        return {}

    def attack(self, nll_sum: Attacked, start: Tensor) -> Tensor:
        """A perturbation of hidden states like `start`, which is zero: [rows, L, H]."""
        return start

    def forget_gradient(self, gradient: Callable[[], Gradients], weights: Weights, step: int) -> Gradients:
        """The forget gradient; `gradient` computes it at the present weights, which are left as they were."""
        return gradient()

    def reconciled(self, forget: Gradients, retain: Gradients) -> Gradients:
        """The forget gradient in view of the retain gradient."""
        return forget

    def after_backward(self, state: State, weights: Weights) -> None:
        """Change `weight.grad` before it is clipped and the optimizer reads it."""

    def after_step(self, state: State, weights: Weights) -> None:
        """Change weights or state after the optimizer's step."""

    def finish(self, state: State, weights: Weights) -> None:
        """Change weights at the end of the run."""


def copied(weights: Weights) -> list[Tensor]:
    """The present values of the weights."""
    return [weight.detach().clone() for weight in weights]


@torch.no_grad()
def restore(weights: Weights, values: Sequence[Tensor]) -> None:
    """Put values back, bit for bit."""
    for weight, value in zip(weights, values, strict=True):
        weight.copy_(value)
