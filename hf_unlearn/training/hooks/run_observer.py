"""The callback that fills the record of a run as it goes: time, steps, figures. It changes nothing of the run."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations import CodeCarbonCallback

from ...results.record import RunRecord
from .run_description import describe_run, peak_memory_mb
from .trainer_view import TrainerView


class RunObserver(TrainerCallback):
    """Fills the record of a run as it goes.

    Args:
        record: to be filled.
        trainer: held weakly; says what it knows when a run begins (model, objective, hardware).
        model_name: what the model was loaded by, None for a model in memory.
        ended: called after the last step.
    """

    def __init__(
        self, record: RunRecord, trainer: TrainerView, model_name: str | None, ended: Callable[[], None]
    ) -> None:
        self._tell_ended = ended
        self.record, self._trainer, self._model_name = record, trainer, model_name
        self._started: float | None = None
        self._ended = False

    @property
    def training(self) -> bool:
        """Whether steps are still to be taken."""
        return self._started is not None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """What is to be done."""
        self._started, self._ended = time.perf_counter(), False
        self.record.cost, self.record.stop_reason, self.record.emissions_kg = {}, None, None
        self.record.planned_steps, self.record.resumed_from = state.max_steps, state.global_step
        # What was measured of the weights as they were is no figure of those that come now.
        self.record.trainer_metrics, self.record.attacks, self.record.attack_report = {}, [], None
        self.record.evaluations.pop("after", None)
        describe_run(self.record, self._trainer, self._model_name)

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """How far it has come."""
        self.look(state)

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """The figures of an evaluation set; one at a time where there are several."""
        self.record.trainer_metrics |= {
            name: value for name, value in (metrics or {}).items() if isinstance(value, int | float)
        }

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """How far it has come."""
        self.look(state)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """What it took."""
        self.look(state)
        self._started, self._ended = None, True
        self._tell_ended()
        self._look_at_emissions()
        if state.is_hyper_param_search and args.should_save:
            # Trainer saves the last model of no trial; what a trial was and came to is in its folder all the same.
            folder = Path(self._trainer._get_output_dir(self._trainer._trial))
            folder.mkdir(parents=True, exist_ok=True)
            self.record.stop_reason = self._trainer.stop_reason
            self.record.save(folder)

    def look(self, state: TrainerState) -> None:
        """How far the run has come, and what it took so far."""
        record = self.record
        record.steps, record.epochs = state.global_step, float(state.epoch or 0)
        record.log = list(state.log_history)
        if self._started is not None:
            record.cost = {"seconds": time.perf_counter() - self._started, "peak_memory_mb": peak_memory_mb()}
            if state.num_input_tokens_seen:
                record.cost["tokens"] = float(state.num_input_tokens_seen)
        if self._ended:
            self._look_at_emissions()

    def _look_at_emissions(self) -> None:
        """codecarbon's figure, which a callback that was added later has only after `on_train_end` has been here."""
        for callback in self._trainer.callback_handler.callbacks:
            if isinstance(callback, CodeCarbonCallback):
                # Without the attribute where codecarbon could not measure, as where power meters are closed to it.
                emitted = getattr(callback.tracker, "final_emissions", None)
                self.record.emissions_kg = self.record.emissions_kg if emitted is None else emitted
