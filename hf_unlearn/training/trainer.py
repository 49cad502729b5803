"""Stage 5, the trainer: the hooks of `transformers.Trainer` that make a step an unlearning step, and nothing else."""

import weakref
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from peft import PeftConfig, PeftModel
from torch import Tensor, nn
from torch.utils.data import DataLoader, Sampler, SequentialSampler
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer, TrainerCallback, set_seed

from ..data.batch import Batch, IndexingCollator, count_answers
from ..data.collator import DataCollatorForUnlearning
from ..data.pairing import is_stream
from ..data.prepare import RowOptions
from ..optimizers.named import named_optimizer
from .baseline import Baseline, require_measurable
from .checks import (
    paired_collator,
    require_config,
    require_other_model,
    require_setup,
    require_tokenizer,
)
from .config import UnlearningConfig
from .hooks.before_training import BeforeTraining
from .hooks.callbacks import (
    DistributedCheckCallback,
    LogWindow,
    NonFiniteGuard,
    SpareFrozenPrefix,
    StepEnds,
    StopRules,
)
from .hooks.evaluation_loop import EvaluationLoop
from .hooks.publishing import Publishing, require_pushable, start_record
from .method_specs import LossSpec
from .methods import Methods
from .model_setup import check_fit, load_model, prepare_model
from .objective import build_objective, retuned, rows_below
from .padding_free import require_own_collator, require_padding_free
from .reference.reference import build_reference
from .step.component_log import ComponentLog
from .step.forward import UnlearningForward, likelihoods_for
from .step.wrapped_step import WrappedStep
from .train_sets import build_train_sets


class UnlearningTrainer(BeforeTraining, EvaluationLoop, Publishing):
    """`transformers.Trainer` that forgets one set of rows and keeps another.

    A step takes one flat batch (forget rows, retain rows, and what else the losses want) through one forward, plus at
    most one forward of the reference; step wrappers may ask for more. Losses are normalised over the whole optimizer
    step: batch size, accumulation and ranks do not change the gradient. Each component is logged by name, unweighted.

    Args:
        model: a name, a causal language model, or a PeftModel (whose adapters then unlearn).
        args: an `UnlearningConfig`.
        train_dataset: {"forget": ..., "retain": ..., "holdout": ...}, rows in any of the accepted formats.
        eval_dataset: {"forget": ..., "retain": ..., ...}, or one set. Gives `eval_forget_nll`, `eval_retain_nll` and
            so on.
        processing_class: the tokenizer; loaded with the model when that is a name.
        forget_loss: overrides `args.forget_loss`: a name, a mapping, a Loss object or a list of them.
        retain_loss: overrides `args.retain_loss`.
        ref_model: what the model was before, where that is not the model as given.
        peft_config: adds an adapter to the model.

    The other arguments are Trainer's; `compute_loss_func` is refused.

    Raises:
        ValueError: data, arguments or models that would not unlearn what was asked, before any training.
    """

    data_collator: Any
    loss_is_scaled_for_ga = True  # the objective divides by the counts of the whole optimizer step
    is_in_train = False  # Trainer sets it too, but only after its first call of model_init

    def __init__(
        self,
        model: str | nn.Module | None = None,
        args: UnlearningConfig | None = None,
        data_collator: Callable[..., Any] | None = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: PreTrainedTokenizerBase | None = None,
        model_init: Callable[..., nn.Module] | None = None,
        compute_loss_func: Callable[..., Any] | None = None,
        compute_metrics: Callable[..., dict[str, float]] | None = None,
        callbacks: list[TrainerCallback] | None = None,
        optimizers: tuple[torch.optim.Optimizer | None, Any] = (None, None),
        optimizer_cls_and_kwargs: tuple[type[torch.optim.Optimizer], dict[str, Any]] | None = None,
        preprocess_logits_for_metrics: Callable[[Tensor, Tensor], Tensor] | None = None,
        *,
        forget_loss: LossSpec = None,
        retain_loss: LossSpec = None,
        ref_model: nn.Module | None = None,
        peft_config: PeftConfig | None = None,
    ) -> None:
        args = require_config(args, compute_loss_func)
        require_pushable(args)
        require_other_model(ref_model, model)
        self.methods = Methods.resolve(args, forget_loss, retain_loss)
        require_own_collator(args, self.methods.attacks, data_collator)
        self._given_losses, self._config_at_start = (forget_loss, retain_loss), args.to_dict()
        self.objective = build_objective(self.methods, args)
        self._model_name = model if isinstance(model, str) else None
        self._ref_model, self._peft_config = ref_model, peft_config
        processing_class = require_tokenizer(processing_class, self._model_name, args)
        self._rows = RowOptions(processing_class, args.max_length, args.template, args.dataset_num_proc)
        sets = build_train_sets(train_dataset, eval_dataset, self.objective, self.methods.wrappers, args, self._rows)
        self.train_sets, self._longest = sets.train, sets.longest
        self._collator = DataCollatorForUnlearning(processing_class.pad_token_id, args.pad_to_multiple_of)
        if model_init is None:
            model = self._prepare_model(load_model(model, args) if isinstance(model, str) else model, args)
        self.baseline: Baseline | None = None
        self.record = start_record(train_dataset)
        super().__init__(
            model=model,
            args=args,
            data_collator=IndexingCollator(
                self._collator if data_collator is None else paired_collator(data_collator, sets.paired)
            ),
            train_dataset=sets.paired,
            eval_dataset=sets.evaluation,
            processing_class=processing_class,
            model_init=model_init,
            compute_metrics=compute_metrics,
            callbacks=callbacks,
            optimizers=optimizers,
            optimizer_cls_and_kwargs=optimizer_cls_and_kwargs,
            preprocess_logits_for_metrics=preprocess_logits_for_metrics,
        )
        self._set_up()

    @property
    def stop_reason(self) -> str | None:
        """Why the last run stopped before its last step, or None."""
        return self._stop_rules.stop_reason

    # Before the first step

    def _prepare_model(self, model: Any, args: UnlearningConfig) -> Any:
        set_seed(args.seed)  # adapters start from random weights
        model = prepare_model(model, args, self._peft_config, whole=self.objective.needs.logps)
        check_fit(model, self._rows.tokenizer, args, self._longest)
        if args.padding_free:
            require_padding_free(model, args)
        return model

    def _set_up(self) -> None:
        """What needs the accelerator: step wrappers, the reference, the rules' callbacks, the step's log."""
        if self.train_sets is not None:
            require_measurable(self.args, self.train_sets.holdout)
        require_setup(self.args, self.methods, self.model, self.accelerator)
        self._steps = WrappedStep(self.methods, self.objective.retain_weight, self.accelerator)
        self._policy(self.model).check_layers()
        self.reference = build_reference(
            self.objective,
            self.args,
            self.model,
            stream=self.train_sets is not None and self.train_sets.stream,
            sharded=self._sharded,
            ref_model=self._ref_model,
            reload=None
            if self._model_name is None
            else partial(load_model, self._model_name, self.args, in_8bit=self.args.reference_load_in_8bit),
        )
        if self.train_sets is not None:
            self.reference.bind(self.model)
            self.reference.prepare(self.accelerator)
        evaluated = list(self.eval_dataset) if isinstance(self.eval_dataset, dict) else []
        self.add_callback(StopRules(evaluated=evaluated if self.args.eval_strategy != "no" else []))
        trainer = weakref.proxy(self)  # a strong reference would keep the weights in memory after `del trainer`
        restart = partial(self._steps.restart, lambda: trainer.objective.retain_weight)
        self.callback_handler.callbacks.insert(0, StepEnds(restart, self._steps.after_step, self._steps.finish))
        if self.args.stop_on_nonfinite:
            finite, stop = lambda: trainer._step_log.finite(trainer.accelerator), lambda reason: trainer._stop(reason)
            self.add_callback(NonFiniteGuard(finite, stop))
        self.add_callback(SpareFrozenPrefix())
        self.add_callback(DistributedCheckCallback(lambda: (trainer.model_wrapped, trainer.accelerator)))
        self._step_log = ComponentLog(self.objective.component_names, self.args.device)
        self.add_callback(LogWindow(self._step_log.start))
        self._observe()

    def call_model_init(self, trial: Any = None) -> nn.Module:
        """A fresh model from `model_init`, prepared as the first one; its reference is bound again."""
        model = self._prepare_model(super().call_model_init(trial), self.args)
        if self.is_in_train and self.train_sets is not None:
            self._move_model_to_device(model, self.args.device)
            self.baseline = None
            self.reference.bind(model)
            self.reference.prepare(self.accelerator)
            self._measure_whole(model)
        return model

    def _hp_search_setup(self, trial: Any) -> None:
        """Trainer's, and the trial's loss arguments and seed too, which were read when the trainer was built."""
        super()._hp_search_setup(trial)
        if trial is not None:
            self.methods = Methods.resolve(self.args, *self._given_losses)
            self.objective = retuned(self.objective, self.methods, self.args, self._config_at_start)
            self.train_dataset.reseed(self.args.seed if self.args.data_seed is None else self.args.data_seed)

    # The step

    def training_step(self, model: nn.Module, inputs: Batch, num_items_in_batch: Tensor | None = None) -> Tensor:
        """Trainer's, inside the step wrappers."""
        counts = count_answers(inputs) if num_items_in_batch is None else num_items_in_batch
        return self._steps.training_step(super().training_step, model, inputs, counts, self.state)

    def _policy(self, model: nn.Module) -> UnlearningForward:
        return UnlearningForward(
            model, self.objective, self.methods.attacks, likelihoods_for(self.objective, self.args)
        )

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Batch,
        return_outputs: bool = False,
        num_items_in_batch: Tensor | None = None,
    ) -> Any:
        """This micro-batch's share of the objective, times the number of processes (their gradients are averaged)."""
        counts = count_answers(inputs) if num_items_in_batch is None else num_items_in_batch
        # While model_init makes a new model, self.model is still the old one.
        unwrapped = model if isinstance(model, PreTrainedModel | PeftModel) else self.model
        # First the reference: where its distributions are compared, it is inside of the policy's forward.
        references = self.reference.read(self.accelerator, model, inputs)
        scores, outputs = self._policy(unwrapped)(model, inputs, references)
        context = self._steps.context
        objective = self.objective.with_retain_weight(context.retain_weight)
        loss, components = objective(scores, counts, rows_below(scores.forget, self._bound))
        self._step_log.add(components if context.recording else {}, loss)
        if context.recording:
            self._steps.record(objective, components)
        if context.last and self.args.stop_on_nonfinite:
            self._step_log.send(self.accelerator)
        loss = loss * self.accelerator.num_processes
        return (loss, outputs) if return_outputs else loss

    @property
    def _bound(self) -> Tensor | float | None:
        return None if self.baseline is None else self.baseline.bound

    def _get_num_items_in_batch(self, batch_samples: list[Batch], device: torch.device) -> Tensor | None:
        """Answer tokens and rows of each role over the whole optimizer step: all micro-batches of all ranks."""
        if not batch_samples:
            return None
        counts = torch.stack([count_answers(batch) for batch in batch_samples]).sum(0).to(device)
        return self.accelerator.reduce(counts, "sum")

    def get_train_dataloader(self) -> DataLoader:
        """Trainer's, its batches without padding where that is asked for."""
        padded = self.data_collator
        if self.args.padding_free:
            self.data_collator = IndexingCollator(replace(self._collator, padding_free=True))
        try:
            return super().get_train_dataloader()
        finally:
            self.data_collator = padded

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler | None:
        rows = self.train_dataset if train_dataset is None else train_dataset
        if is_stream(rows) or self.args.train_sampling_strategy == "batch_rebalance":
            return super()._get_train_sampler(train_dataset)
        return SequentialSampler(rows)  # the paired dataset decides the order itself

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Trainer's log, with every component of the loss by name, unweighted."""
        if "loss" in logs:
            logs |= self._step_log.read(self.accelerator) | self._steps.logged()
        super().log(logs, start_time)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        if self.args.should_save:
            self._steps.save(output_dir)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            self._steps.load(checkpoint)

    @staticmethod
    def get_optimizer_cls_and_kwargs(args: Any, model: Any = None) -> tuple[Any, Any]:
        """Trainer's, and the optimizers of `hf_unlearn.optimizers` by name."""
        return named_optimizer(args) or Trainer.get_optimizer_cls_and_kwargs(args, model)

    def _stop(self, reason: str) -> None:
        self._stop_rules.stop(reason, self.state, self.control)
