"""What a step wrapper is: hooks around one optimizer step, of gradients and weights. It runs nothing."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..errors import input_error
from ..setups import Refused, Setup

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
SIXTEEN_BITS: Refused = {
    Setup.SIXTEEN_BITS: "the step away from the weights rounds to nothing for most of them; load the model in float32"
}
WHOLE_GRADIENTS: Refused = {
    Setup.ZERO_1_2: _NO_GRADIENTS,
    Setup.ZERO_3: _NO_GRADIENTS,
    Setup.FSDP: "gradients and weights are split over ranks, and norms, masks and inner products are of whole ones",
}


@dataclass(frozen=True)
class StepWrapper:
    """Changes what one optimizer step does; composes with any loss and with the other wrappers.

    The order of a step is fixed, whatever the order of the wrappers: attacks inside each forward of forget rows, then
    the forget gradient (the first wrapper innermost), its reconciliation with the retain gradient, their sum, masks,
    the optimizer, what follows it. Gradients are those of a whole optimizer step: all accumulation steps, all ranks.

    Class attributes: `name`; `splits`, whether the gradients of both sides are needed apart, each from a forward of
    its own rows; `measures`, whether `begin` reads the gradients of the whole training set; `reads_retain`, whether it
    is idle without a retain side; `kept`, the names of its state that checkpoints hold, the rest being made again by
    `begin`; `refused`; `formula` and `paper`.
    """

    name: ClassVar[str]
    splits: ClassVar[bool] = False
    measures: ClassVar[bool] = False
    reads_retain: ClassVar[bool] = False
    kept: ClassVar[tuple[str, ...]] = ()
    refused: ClassVar[Refused] = WHOLE_GRADIENTS
    formula: ClassVar[str]
    paper: ClassVar[str]

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

    def require(self, argument: str, holds: bool, expected: str) -> None:
        """Raise unless an argument is a number for which `holds` is true."""
        value = getattr(self, argument)
        if not holds:
            raise argument_error(self, argument, expected, value)

    def __post_init__(self) -> None:
        for each in dataclasses.fields(self):
            require_number(self, each.name, numeric=each.type is not str)


def require_number(part: Any, argument: str, *, numeric: bool = True) -> None:
    """Raise unless an argument of a wrapper or weighting is a number that is not NaN (where it is to be one)."""
    value = getattr(part, argument)
    if numeric and (isinstance(value, bool) or not isinstance(value, int | float) or value != value):
        raise argument_error(part, argument, "a number", value)


def argument_error(part: Any, argument: str, expected: str, got: Any) -> ValueError:
    """The error of an argument that a wrapper or weighting cannot be computed with."""
    return input_error(
        expected=f"{argument} of {part.name} to be {expected}",
        got=repr(got),
        why=f"it enters the formula {part.formula}",
        fix="`hf-unlearn methods` lists the arguments with their defaults",
    )


def copied(weights: Weights) -> list[Tensor]:
    """The present values of the weights."""
    return [weight.detach().clone() for weight in weights]


@torch.no_grad()
def restore(weights: Weights, values: Sequence[Tensor]) -> None:
    """Put values back, bit for bit."""
    for weight, value in zip(weights, values, strict=True):
        weight.copy_(value)
