"""Stops a run before a step whose loss or gradient is NaN or infinite, and has the state before it saved."""

from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class NonFiniteGuard(TrainerCallback):
    """Stops before a step whose loss or gradient was NaN or infinite on any rank, and saves the state before it.

    The step's gradients are dropped, so that they never reach the weights. Under DeepSpeed the engine steps inside
    backward: it leaves out a step whose gradient is not finite by itself, where it is told to look, and `ComponentLog`
    makes the gradient of a loss that is not finite so.

    Args:
        loss_is_finite: whether every loss since the last call was finite, the same answer on all ranks.
        gradient_is_finite: whether the gradient of the whole step is, the same answer on all ranks.
        drop: tells the step wrappers that the step is not taken.
        prepare: called with the run's start.
        stop: records a reason and stops the run.
    """

    def __init__(
        self,
        loss_is_finite: Callable[[], bool],
        gradient_is_finite: Callable[[], bool],
        drop: Callable[[], None],
        stop: Callable[[str], None],
        prepare: Callable[[], None],
    ) -> None:
        self.loss_is_finite, self.gradient_is_finite = loss_is_finite, gradient_is_finite
        self.drop, self.stop, self.prepare = drop, stop, prepare

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """The model has been wrapped."""
        self.prepare()

    def on_pre_optimizer_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        **kwargs: Any,
    ) -> None:
        """Look at the losses and the gradient of this optimizer step."""
        broken = "loss" if not self.loss_is_finite() else "gradient" if not self.gradient_is_finite() else None
        if broken is not None:
            model.zero_grad()
            self.drop()
            self.stop(f"the {broken} was not finite")
            # The weights are those of the last good step. There is nothing to save before the first.
            control.should_save = args.save_strategy != "no" and state.global_step > 0
