"""Estimates the levels of the forget rows again in the course of a run, on the model as it then is."""

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..step.row_levels import RowLevels
from .trainer_view import TrainerView


class Recalibration(TrainerCallback):
    """Every so many steps: what the model as it is gives to unseen rows that no anchor holds, and levels by that.

    Where the forget rows taught the model a behaviour, the model before unlearning finds unseen rows of the behaviour
    easier than a model that never saw any. As the behaviour goes, these rows become harder, and the levels follow.

    Args:
        trainer: held weakly; Trainer has built it.
        levels: what the losses are told of levels.
        every: steps from one estimate to the next.
    """

    def __init__(self, trainer: TrainerView, levels: RowLevels, every: int) -> None:
        self._trainer, self._levels, self._every = trainer, levels, every

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """A step was taken; after the last one nothing would read the levels."""
        baseline = self._trainer.baseline
        if state.global_step % self._every or state.global_step >= state.max_steps or baseline is None:
            return
        assert baseline.levels is not None and baseline.levels.again is not None  # checked when the trainer was built
        model = self._trainer.model_wrapped if self._trainer.distributed.sharded else self._trainer.model
        self._levels.recalibrate(baseline.levels.again(model))
