"""Step wrappers: what may change an optimizer step, one abstract class for each thing that a wrapper can do."""

import abc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..component import Component, IncompatibleSetups, TrainingSetup
from ..errors import input_error

# One tensor for each trainable weight, in the weights' order.
Gradients = list[Tensor]
Weights = Sequence[nn.Parameter]
# What a wrapper holds from step to step, by name.
State = dict[str, list[Tensor]]
# The forget and the retain gradient of the whole training set, measured when it is called.
Sides = Callable[[], tuple[Gradients, Gradients]]
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
class StepWrapper(Component, abc.ABC):
    """Changes what one optimizer step does; composes with any loss and with the other wrappers.

    A wrapper is a subclass of one or more of the classes below, each of which is one thing that it can do:

    - before the first step: `MeasuresTrainingSet` (measure), `KeepsState` (begin);
    - in a step, in this order: `PerturbsHiddenStates` (attack), `ChangesForgetGradient` (forget_gradient),
      `ReconcilesGradients` (reconciled), `MasksGradient` (after_backward), the optimizer, `FollowsStep` (after_step);
    - at the end of the run: `SetsFinalWeights` (finish).

    The order is fixed, whatever the order of the wrappers; of several that do the same, the first comes first (and is
    innermost around the forget gradient). Gradients are those of a whole optimizer step: all accumulation steps, all
    ranks. A wrapper sees tensors, never a model or a row.

    Raises:
        ValueError: an argument of another type, or a class that does none of these things.
    """

    incompatible_with: ClassVar[IncompatibleSetups] = WHOLE_GRADIENTS

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self, _CAPABILITIES):
            raise input_error(
                expected=f"a step wrapper that is one of {', '.join(kind.__name__ for kind in _CAPABILITIES)}",
                got=f"{type(self).__name__}, a StepWrapper alone",
                why="none of its methods would ever be called, and the run would be one without it",
                fix=f"for example class {type(self).__name__}(ChangesForgetGradient), from hf_unlearn.steps",
            )


@dataclass(frozen=True)
class MeasuresTrainingSet(StepWrapper):
    """Reads the gradients of the whole training set once, before the first step. Streams are refused with it."""

    @abc.abstractmethod
    def measure(self, weights: Weights, sides: Sides) -> State:
        """State that is made of the model before unlearning; a resumed run makes it again.

        Args:
            weights: the trainable ones, at their values before unlearning.
            sides: gives the forget and the retain gradient, each with its side's weight, at the cost of a forward and
                backward of every training pair.
        """


@dataclass(frozen=True)
class KeepsState(StepWrapper):
    """Holds state that changes from step to step: new in every run, and written into checkpoints."""

    @abc.abstractmethod
    def begin(self, weights: Weights) -> State:
        """The state before the first step."""


@dataclass(frozen=True)
class PerturbsHiddenStates(StepWrapper):
    """Adds a perturbation to one layer's hidden states of the forget rows in their forward."""

    @property
    @abc.abstractmethod
    def attack_layer(self) -> float | None:
        """A number of decoder blocks, or a share of the depth below 1; None where it perturbs nothing."""

    @abc.abstractmethod
    def attack(self, nll_sum: Attacked, start: Tensor) -> Tensor:
        """The perturbation: [rows, L, H], of the type and on the device of `start`.

        Args:
            nll_sum: the NLL of the forget answers under a perturbation; differentiable in it.
            start: zero everywhere.
        """


@dataclass(frozen=True)
class ChangesForgetGradient(StepWrapper):
    """Makes the forget gradient of a step. Both sides of a batch then have forwards of their own."""

    @abc.abstractmethod
    def forget_gradient(self, gradient: Callable[[], Gradients], weights: Weights, step: int) -> Gradients:
        """The forget gradient of a step.

        Args:
            gradient: computes it at the present weights; may be called again at others.
            weights: the trainable ones, which must be as they were on return.
            step: optimizer steps before this one.
        """


@dataclass(frozen=True)
class ReconcilesGradients(StepWrapper):
    """Changes the forget gradient in view of the retain gradient. Needs a retain side, and forwards of its own."""

    @abc.abstractmethod
    def reconciled(self, forget: Gradients, retain: Gradients) -> Gradients:
        """The forget gradient that is added to the retain gradient."""


@dataclass(frozen=True)
class MasksGradient(StepWrapper):
    """Changes the gradient of both sides together."""

    @abc.abstractmethod
    def after_backward(self, state: State, weights: Weights) -> None:
        """Change `weight.grad` before it is clipped and the optimizer reads it."""


@dataclass(frozen=True)
class FollowsStep(StepWrapper):
    """Changes weights or its state after the optimizer's step."""

    @abc.abstractmethod
    def after_step(self, state: State, weights: Weights) -> None:
        """Change weights in place, or `state`."""


@dataclass(frozen=True)
class SetsFinalWeights(StepWrapper):
    """Changes the weights once, when the run has ended."""

    @abc.abstractmethod
    def finish(self, state: State, weights: Weights) -> None:
        """Change weights in place."""


_CAPABILITIES = (
    MeasuresTrainingSet,
    KeepsState,
    PerturbsHiddenStates,
    ChangesForgetGradient,
    ReconcilesGradients,
    MasksGradient,
    FollowsStep,
    SetsFinalWeights,
)


def copied(weights: Weights) -> list[Tensor]:
    """The present values of the weights."""
    return [weight.detach().clone() for weight in weights]


@torch.no_grad()
def restore(weights: Weights, values: Sequence[Tensor]) -> None:
    """Put values back, bit for bit."""
    for weight, value in zip(weights, values, strict=True):
        weight.copy_(value)
