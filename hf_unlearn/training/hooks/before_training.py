"""When a run's model is measured: before any step, wherever its parameters are. What is measured, others know."""

from collections.abc import Iterator
from typing import Any

from torch import nn
from torch.optim import Optimizer
from transformers import Trainer
from transformers.integrations import is_deepspeed_zero3_enabled
from transformers.trainer_utils import TrainOutput

from ...data.batch import Batch
from ...data.collator import DataCollatorForUnlearning
from ...data.prepare import RowOptions, TrainSets
from ...model.output_head import output_head
from ...model.score_rows import RowScorer
from ..baseline import Baseline, measure_baseline, watched_rows
from ..config import UnlearningConfig
from ..padding_free import require_rows_apart
from ..reference.cache import ReferenceCache, precompute
from ..reference.reference import Reference
from ..step.wrapped_step import WrappedStep
from .callbacks import StopRules


class BeforeTraining(Trainer):
    """The hooks of `transformers.Trainer` around the moments at which a model is still what it was."""

    args: UnlearningConfig
    train_sets: TrainSets | None
    baseline: Baseline | None
    reference: Reference
    _collator: DataCollatorForUnlearning
    _rows: RowOptions
    _steps: WrappedStep

    def train(
        self, resume_from_checkpoint: str | bool | None = None, trial: Any = None, ignore_keys_for_eval: Any = None
    ) -> TrainOutput:
        """Measure what the losses and rules need of the model before unlearning, then train as Trainer does."""
        if self.model_init is None:
            self._measure_whole(self.model)
        return super().train(resume_from_checkpoint, trial, ignore_keys_for_eval)

    def create_scheduler(self, num_training_steps: int, optimizer: Optimizer | None = None) -> Any:
        """Trainer's, and the moment to measure a model that is split over ranks."""
        scheduler = super().create_scheduler(num_training_steps, optimizer)
        # Trainer calls it when the model has just been wrapped, and before a checkpoint's weights come into it.
        # DeepSpeed calls it too, for an optimizer of its own and before it has wrapped anything.
        if self._sharded and self.is_in_train and optimizer is None and self.train_sets is not None:
            self._measure(self.accelerator._models[-1], self.train_sets)
        return scheduler

    @property
    def _sharded(self) -> bool:
        return self.is_fsdp_enabled or is_deepspeed_zero3_enabled()

    @property
    def _stop_rules(self) -> StopRules:
        # Looked up, because a resumed run may have replaced the callback by a restored one.
        return next(each for each in self.callback_handler.callbacks if isinstance(each, StopRules))

    def _measure_whole(self, model: nn.Module) -> None:
        """Measure a model that every rank holds whole, before Trainer loads a checkpoint into it."""
        if self.train_sets is not None and not self._sharded:
            self._measure(model, self.train_sets)

    def _measure(self, model: nn.Module, sets: TrainSets) -> None:
        """Cached reference log-probs, the row bound and the levels of the stop rules; once for a model."""
        if self.baseline is not None:
            return
        scorer = RowScorer(self._collator, self.accelerator, self.args.per_device_eval_batch_size)
        if self.args.padding_free:
            require_rows_apart(model, sets.forget, scorer)
        cache = ReferenceCache(scorer, self._rows.tokenizer, self.args.reference_cache_dir)
        k = min(self.args.reference_top_k, output_head(self.accelerator.unwrap_model(model)).vocabulary)
        precompute(self.reference, model, sets, cache, k)
        evaluated = "retain" in self._stop_rules.evaluated
        watched = self.eval_dataset["retain"] if evaluated else watched_rows(sets.retain)
        self.baseline = measure_baseline(model, self.args, scorer, sets, watched)
        self._stop_rules.watch(self.baseline.forget_target, self.baseline.retain_limit(self.args))
        unwrapped = self.accelerator.unwrap_model(model)
        self._steps.begin(unwrapped, self._training_pass, self.compute_loss, self.compute_loss_context_manager)

    def _training_pass(self) -> Iterator[Batch]:
        return (self._prepare_inputs(batch) for batch in self.get_train_dataloader())
