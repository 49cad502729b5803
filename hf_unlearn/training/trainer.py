"""`UnlearningTrainer`: the hooks of `transformers.Trainer` that make a step an unlearning step, in its own order."""

import weakref
from collections.abc import Callable
from typing import Any

import datasets
import torch
from peft import PeftConfig, PeftModel
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader, Sampler
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer, TrainerCallback
from transformers.trainer_utils import EvalLoopOutput, TrainOutput
from transformers.utils.hub import PushInProgress

from ..data.batch import Batch, count_answers
from ..evaluation import EvaluationResult
from ..model.output_head import output_head
from ..model.scoring import score_answers
from ..model.sharding import reshard
from ..optimizers.named import named_optimizer
from .baseline import Baseline
from .checkpoints.run_folder import RunFolder
from .checks import require_config, require_setup
from .config import UnlearningConfig
from .distributed_setup import DistributedSetup, let_go_of_ddp
from .hooks.before_training import BaselineMeasurement
from .hooks.callbacks import stop_rules_of
from .hooks.evaluation_loop import RowEvaluation, kept_outputs, lend_trainer
from .hooks.publishing import RunPublisher, warn_of_failures
from .hooks.run_callbacks import add_run_callbacks
from .hooks.run_recorder import RunRecorder, start_record
from .launch.verify import require_engaged, restored_environment
from .method_specs import LossSpec
from .model_checks import require_models
from .prepared_run import PreparedRun
from .row_attributes import EvalRows, TokenRows, TrainRows
from .row_layout import RowLayout
from .sampling import train_sampler
from .step.component_log import ComponentLog
from .step.forward import UnlearningForward, likelihoods_for
from .step.step_counts import ROUTER_LOSS, StepCounts
from .step.wrapped_step import WrappedStep
from .trials import checkpoint_asked_for, prepare_search


class UnlearningTrainer(Trainer):
    """`transformers.Trainer` that forgets one set of rows and keeps another.

    A step takes one flat batch (forget rows, retain rows, and what else the losses want) through one forward, plus at
    most one forward of the reference; step wrappers may ask for more. Losses are normalised over the whole optimizer
    step: batch size, accumulation and ranks do not change the gradient. Each component is logged by name, unweighted.

    Args:
        model: a name, a causal language model, or a PeftModel (whose adapters then unlearn).
        args: an `UnlearningConfig`.
        train_dataset: {"forget": ..., "retain": ..., "holdout": ...}, rows in any of the accepted formats.
        eval_dataset: {"forget": ..., "retain": ..., ...}, or one set. Gives `eval_forget_nll` and so on.
        processing_class: the tokenizer; loaded with the model when that is a name.
        forget_loss, retain_loss: override those of `args`: a name, a mapping, a Loss object or a list of them.
        ref_model: what the model was before, where that is not the model as given.
        peft_config: adds an adapter to the model.

    The other arguments are Trainer's; `compute_loss_func` is refused.

    Attributes:
        record: what results.json and the card say; its `metadata`, `attacks` and sources in `sets` are the user's.

    Raises:
        ValueError: data, arguments or models that would not unlearn what was asked, before any training.
    """

    loss_is_scaled_for_ga = True  # the objective divides by the counts of the whole optimizer step
    push_in_progress: PushInProgress | None  # Trainer's own
    is_in_train = False  # Trainer sets it too, but only after its first call of model_init
    train_dataset, eval_dataset = TrainRows(), EvalRows()

    @restored_environment()
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
        require_models(model, ref_model, peft_config, args)
        losses, data = (forget_loss, retain_loss), (train_dataset, eval_dataset, processing_class, data_collator)
        self._prepared = run = PreparedRun.prepare(args, losses, *data, model, peft_config, ref_model)
        self.methods, self.unlearning_objective, self.train_sets = run.methods, run.objective, run.sets.train
        self.record = start_record(train_dataset)
        self._publisher = RunPublisher(args, self.record)
        super().__init__(
            model=run.prepare_model(model) if model_init is None else model,
            model_init=model_init,
            compute_metrics=compute_metrics,
            callbacks=callbacks,
            optimizers=optimizers,
            optimizer_cls_and_kwargs=optimizer_cls_and_kwargs,
            preprocess_logits_for_metrics=preprocess_logits_for_metrics,
            **run.trainer_arguments,
        )
        self._set_up()

    def _set_up(self) -> None:
        """What needs the accelerator, which Trainer has made."""
        run = self._prepared
        run.require_levels()
        require_engaged(self.accelerator)
        self.distributed = DistributedSetup.detect(self.args, self.accelerator)
        require_setup(self.args, self.methods, self.model, self.distributed)
        self._steps = WrappedStep(self.methods, run.objective.retain_weight, self.accelerator)
        self._counts = StepCounts(self.accelerator, self.args, self.distributed, by_side=self._steps.by_side)
        self._step_log = ComponentLog([*run.objective.component_names, ROUTER_LOSS], self.args.device)
        self._policy(self.model).check_layers()
        self.reference = run.reference(self.model, self.distributed)
        self._measurement: BaselineMeasurement | None = None
        if self.train_sets is not None:
            self.reference.bind(self.model, self.accelerator, self.distributed)
            self._measurement = BaselineMeasurement(run, self.reference, self.distributed)
        self._evaluation, self._layout = RowEvaluation(), RowLayout(run, self.accelerator)
        self._recorder = RunRecorder(self.record, trainer := weakref.proxy(self), run.model_name)
        self.run_folder = RunFolder(trainer, self._recorder.described)
        add_run_callbacks(trainer, self._steps, self._step_log, self._recorder.observer, self.run_folder.resumed_from)

    # Before the first step

    def train(
        self, resume_from_checkpoint: str | bool | None = None, trial: Any = None, ignore_keys_for_eval: Any = None
    ) -> TrainOutput:
        """Measure what the losses and rules need of the model before unlearning, then train as Trainer does."""
        resume_from_checkpoint = checkpoint_asked_for(resume_from_checkpoint, self.args, trial)
        resume_from_checkpoint = self.run_folder.begin(resume_from_checkpoint, trial=trial is not None)
        self._recorder.begin(resume_from_checkpoint, self._prepared.ref_model)
        if self.model_init is None:
            self._measure(self.model, sharded=False)
        lend_trainer(self.callback_handler.callbacks, self)
        return super().train(resume_from_checkpoint, trial, ignore_keys_for_eval)

    def call_model_init(self, trial: Any = None) -> nn.Module:
        """A fresh model from `model_init`, prepared as the first one; its reference is bound again."""
        model = self._prepared.prepare_model(super().call_model_init(trial))
        if self.is_in_train and self._measurement is not None:
            self._move_model_to_device(model, self.args.device)
            self._measurement.restart()
            self.reference.bind(model, self.accelerator, self.distributed)
            self._measure(model, sharded=False)
        return model

    def hyperparameter_search(self, *args: Any, **kwargs: Any) -> Any:
        """Trainer's; a trial may set `trials.TUNABLE` too, and a default objective that means nothing is refused."""
        args, kwargs = prepare_search(self, *args, **kwargs)
        return super().hyperparameter_search(*args, **kwargs)

    def _hp_search_setup(self, trial: Any) -> None:
        """Trainer's, and what was read when the trainer was built: loss arguments and seed, by a trial or the user."""
        with self._prepared.trial_arguments(trial):
            super()._hp_search_setup(trial)
        self.methods, self.unlearning_objective = self._prepared.retuned(self.unlearning_objective)

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler | None:
        rows = self.train_dataset if train_dataset is None else train_dataset
        sampler = train_sampler(rows, self.args, self._train_batch_size)
        return super()._get_train_sampler(train_dataset) if sampler is None else sampler

    @staticmethod
    def get_optimizer_cls_and_kwargs(args: Any, model: Any = None) -> tuple[Any, Any]:
        """Trainer's, and the optimizers of `hf_unlearn.optimizers` by name."""
        return named_optimizer(args) or Trainer.get_optimizer_cls_and_kwargs(args, model)

    def create_scheduler(self, num_training_steps: int, optimizer: Optimizer | None = None) -> Any:
        """Trainer's, and the moment to measure a model that is split over ranks."""
        scheduler = super().create_scheduler(num_training_steps, optimizer)
        # Trainer calls it when the model has just been wrapped, and before a checkpoint's weights come into it.
        # DeepSpeed calls it too, for an optimizer of its own and before it has wrapped anything.
        if self.is_in_train and optimizer is None and self.distributed.sharded:
            self._measure(self.accelerator._models[-1], sharded=True)
        return scheduler

    def _measure(self, model: nn.Module, *, sharded: bool) -> None:
        """Measure a model once, at the moment for models that are, or are not, split over ranks."""
        if self._measurement is None or self.baseline is not None or sharded != self.distributed.sharded:
            return
        rules = stop_rules_of(self.callback_handler)
        self._counts.begin_run(probe := self._measurement.measure(model, self.accelerator, rules))
        calls = (lambda: map(self._prepare_inputs, self.get_train_dataloader()), self.compute_loss)
        self._layout.choose(model, probe, *calls, self._steps, self.run_folder.resumed_from())
        self._steps.begin(self.accelerator.unwrap_model(model), *calls, self.compute_loss_context_manager)

    @property
    def baseline(self) -> Baseline | None:
        """What was measured of the model before the first step; None until then."""
        return None if self._measurement is None else self._measurement.baseline

    @property
    def stop_reason(self) -> str | None:
        """Why the last run stopped before its last step, or None."""
        return stop_rules_of(self.callback_handler).stop_reason

    # The step

    def _run_epoch(self, **kwargs: Any) -> None:
        if self.state.global_step < self.state.max_steps:  # Trainer takes another step of a finished run
            super()._run_epoch(**kwargs)

    def _get_num_items_in_batch(self, batch_samples: list[Batch], device: torch.device) -> Tensor | None:
        """Answer tokens and rows of each role over the whole optimizer step: all micro-batches of all ranks."""
        return self._counts.begin_step(self.model_wrapped, batch_samples, device) if batch_samples else None

    def training_step(self, model: nn.Module, inputs: Batch, num_items_in_batch: Tensor | None = None) -> Tensor:
        """Trainer's, inside the step wrappers."""
        counts = count_answers(inputs) if num_items_in_batch is None else num_items_in_batch
        return self._steps.training_step(super().training_step, model, inputs, counts, self.state)

    def _policy(self, model: nn.Module) -> UnlearningForward:
        likelihoods = likelihoods_for(self.unlearning_objective, self.args, self._counts.router_loss)
        return UnlearningForward(model, self.unlearning_objective, self.methods.attacks, likelihoods)

    def compute_loss(
        self, model: nn.Module, inputs: Batch, return_outputs: bool = False, num_items_in_batch: Tensor | None = None
    ) -> Any:
        """This micro-batch's share of the objective, times the number of processes (their gradients are averaged)."""
        counts = count_answers(inputs) if num_items_in_batch is None else num_items_in_batch
        # While model_init makes a new model, self.model is still the old one.
        unwrapped = model if isinstance(model, PreTrainedModel | PeftModel) else self.model
        # First the reference: where its distributions are compared, it is inside of the policy's forward.
        references = self.reference.read(self.accelerator, model, inputs)
        scores, outputs = self._policy(unwrapped)(model, inputs, references)
        context = self._steps.context
        objective = self.unlearning_objective.with_retain_weight(context.retain_weight)
        scores = self._steps.levels.supplied(scores, self.baseline, context)
        loss, components = objective(scores, counts, every_weight=context.every_weight)
        loss = self._counts.with_router_loss(loss, components, outputs, inputs)
        self._step_log.add(components if context.recording else {}, loss)
        self._steps.record(objective, components)
        if context.last and self.args.stop_on_nonfinite:
            self._step_log.send(self.accelerator, loss)
        if (factor := 0 if context.idle else self.accelerator.num_processes) != 1:
            loss = loss * factor
        return (loss, outputs) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Trainer's log, with every component of the loss by name, unweighted."""
        if "loss" in logs:
            logs |= self._step_log.read(self.accelerator) | self._steps.logged()
        super().log(logs, start_time)

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        return self._step_log.seen_norm(super()._get_grad_norm(model, grad_norm))

    # Evaluation

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Trainer's, with its suites' callbacks able to log."""
        lend_trainer(self.callback_handler.callbacks, self)
        return super().evaluate(*args, **kwargs)

    def _get_dataloader(self, dataset: Any, *args: Any, **kwargs: Any) -> DataLoader:
        dataset = TokenRows(dataset) if isinstance(dataset, datasets.Dataset) else dataset
        return super()._get_dataloader(dataset, *args, **kwargs)

    def _get_collator_with_removed_columns(self, data_collator: Any, description: str | None = None) -> Any:
        return self._layout.collator_of(data_collator)  # removes nothing: it adds roles and index

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader:
        """Trainer's, for rows in any of the accepted formats."""
        if eval_dataset is not None and not isinstance(eval_dataset, str):  # else tokenised already
            eval_dataset = self._prepared.options.tokenize(eval_dataset, "eval")
        # With persistent workers Trainer keeps one loader for all sets without a name: the first rows would stay.
        vars(self).get("_eval_dataloaders", {}).pop("eval", None)
        return super().get_eval_dataloader(eval_dataset)

    def get_test_dataloader(self, test_dataset: Any) -> DataLoader:
        """Trainer's, for rows in any of the accepted formats."""
        return super().get_test_dataloader(self._prepared.options.tokenize(test_dataset, "eval"))

    def evaluation_loop(self, dataloader: DataLoader, *args: Any, **kwargs: Any) -> EvalLoopOutput:
        """Trainer's loop, with the set's exact NLL per token and answer probability."""
        self._evaluation.start()
        output = super().evaluation_loop(dataloader, *args, **kwargs)
        reshard(self.model)  # the best checkpoint may be loaded next
        output.metrics.update(self._evaluation.metrics(*args[3:], **kwargs))
        return output

    def prediction_step(
        self, model: nn.Module, inputs: Batch, prediction_loss_only: bool, ignore_keys: list[str] | None = None
    ) -> tuple[Tensor, Any, Tensor | None]:
        """NLLs of a batch's rows; the model's outputs as Trainer's only where metrics are computed from them."""
        inputs, head = self._prepare_inputs(inputs), output_head(self.model)
        with torch.no_grad(), self.compute_loss_context_manager():
            scores, outputs = score_answers(model, head, inputs, full_logits=not prediction_loss_only)
        loss = self._evaluation.add(self.accelerator, scores)
        kept = (None, None) if prediction_loss_only else kept_outputs(outputs, self.model, ignore_keys, inputs)
        return loss, *kept

    # Checkpoints, the record and the card

    def _get_output_dir(self, trial: Any) -> str:
        return self.run_folder.place(super()._get_output_dir(trial))

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        with self.run_folder.writing_checkpoint(self._get_output_dir(trial), [self._steps.save, self._layout.save]):
            super()._save_checkpoint(model, trial)

    def save_state(self) -> None:
        """Trainer's, whole or not at all."""
        self.run_folder.save_state()

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False, *, card: bool = True) -> None:
        """Trainer's, and then results.json and the card; `card=False` leaves that to a `write_card` that follows."""
        with self.run_folder.writing_model(output_dir) as folder:
            super().save_model(folder, _internal_call=True)
        self._recorder.write(output_dir, card=card)  # over the card that PEFT writes
        if self.args.push_to_hub and not _internal_call:  # Trainer's own would come before the card
            self.push_to_hub(commit_message="Model save", revision=self.args.hub_revision)

    def add_evaluation(self, name: str, result: EvaluationResult) -> None:
        """Put a suite's result ("before", "after", "oracle" or another word) into the record, and the next card."""
        self._recorder.add_evaluation(name, result)

    def write_record(self, folder: str | None = None) -> None:
        """Write results.json into a folder (`args.output_dir`), and take away a card that lies there."""
        self._recorder.write(folder, card=False)

    def write_card(self, folder: str | None = None) -> None:
        """Write results.json and README.md into a folder (`args.output_dir`), over whatever is there."""
        self._recorder.write(folder, card=True)

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Write the card, with what only the user knows: Trainer's arguments, as of `RunRecorder.add_metadata`."""
        self._recorder.add_metadata(*args, **kwargs)
        self.write_card()

    def close(self) -> None:
        """Other processes may then train into the output folder, and the rows that lay there are gone."""
        self.run_folder.close()
        self._prepared.close()

    def end(self) -> None:
        """Trainer's, after `close`."""
        self.close()
        let_go_of_ddp(self)
        super().end()

    # The Hub

    def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:
        """Trainer's; private unless every set is known to be public, or `hub_private_repo` says otherwise."""
        if self.is_world_process_zero():
            self._publisher.create_repository(super().init_hf_repo, lambda: self.hub_model_id, token, private)

    def push_to_hub(
        self,
        commit_message: str | None = "End of training",
        blocking: bool = True,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        **kwargs: Any,
    ) -> Any:
        """Push model or adapter, tokenizer, results.json, card and plots, and nothing else, in one commit.

        A repository that it makes is private unless all sets are public (`private=False` makes it public). The other
        arguments are Trainer's, `kwargs` those of `create_model_card`; a Future comes back where it does not block.

        Raises:
            PushError: the Hub refused or could not be reached; pushing again goes on.
        """
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        if self.hub_model_id is None:
            self.init_hf_repo(token, private)
        self.save_model(_internal_call=True, card=not self.is_world_process_zero())
        if not self.is_world_process_zero():
            return None
        self.create_model_card(**kwargs)  # the first process's card
        self._finish_current_push()
        push = self._publisher.push(self.hub_model_id, commit_message or "End of training", token, revision, private)
        return push() if blocking else push.api.run_as_future(push)

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Trainer's, of what a push brings to the Hub alone; it runs beside the training."""
        if not self.is_world_process_zero() or not self._publisher.may_push_checkpoint(self.push_in_progress):
            return
        self.callback_handler.on_push_begin(self.args, self.state, self.control)
        ahead = (self.push_in_progress, self.hub_model_id, self.state.global_step)
        self.push_in_progress = self._publisher.push_checkpoint(checkpoint_folder, *ahead)

    def _finish_current_push(self) -> None:
        """Trainer's, and a warning of pushes during the training that have failed."""
        super()._finish_current_push()
        warn_of_failures(getattr(self, "push_in_progress", None))
        self.push_in_progress = None
