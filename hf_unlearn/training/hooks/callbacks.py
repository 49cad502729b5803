"""Callbacks of a run: when to stop and why, what opens and closes with it, and checks of the model that trains."""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import CallbackHandler, ExportableState

from ...data.pairing import is_stream
from ..distributed_setup import DistributedSetup
from ..launch.verify import require_wrapped


class StopRules(TrainerCallback, ExportableState):
    """Stops a run that has forgotten enough, or that costs too much of what is to be kept.

    Watches `eval_forget_nll` and `eval_retain_nll` where there is an evaluation set of that name, else the training
    log's `forget_nll` and `retain_nll`; and the training log's `level_distance`. The reason is kept in `stop_reason`,
    and with it in `trainer_state.json` under `stateful_callbacks.StopRules.attributes`.

    Args:
        forget_target: forget NLL (nats per token) that is enough.
        retain_limit: retain NLL (nats per token) above which the run stops.
        evaluated: names of the evaluation sets.
        level_distance: median distance of the forget rows to their levels (nats per token) that is near enough.
    """

    def __init__(
        self,
        forget_target: float | None = None,
        retain_limit: float | None = None,
        evaluated: list[str] | None = None,
        level_distance: float | None = None,
    ) -> None:
        self.forget_target, self.retain_limit = forget_target, retain_limit
        self.evaluated, self.level_distance = evaluated or [], level_distance
        self.stop_reason: str | None = None
        self._training = False

    def watch(self, forget_target: float | None, retain_limit: float | None) -> None:
        """Set the levels, once they are measured."""
        self.forget_target, self.retain_limit = forget_target, retain_limit

    def state(self) -> dict[str, Any]:
        """What is written to `trainer_state.json`."""
        arguments = {
            "forget_target": self.forget_target,
            "retain_limit": self.retain_limit,
            "evaluated": self.evaluated,
            "level_distance": self.level_distance,
        }
        return {"args": arguments, "attributes": {"stop_reason": self.stop_reason}}

    def stop(self, reason: str, state: TrainerState, control: TrainerControl) -> None:
        """Stop after this step, for a reason; the first reason stands."""
        control.should_training_stop = True
        if self.stop_reason is None:
            self.stop_reason = f"{reason} at step {state.global_step}"
        state.stateful_callbacks[type(self).__name__] = self.state()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """A new run has no reason yet."""
        self.stop_reason, self._training = None, True

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """An evaluation of the finished run stops nothing, whatever it finds."""
        self._training = False

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Look at the training rows of the last logging window."""
        for name in ("forget", "retain"):
            if name not in self.evaluated:
                self._check(name, (logs or {}).get(f"{name}_nll"), "training", state, control)
        distance, near_enough = (logs or {}).get("level_distance"), self.level_distance
        if self._training and distance is not None and near_enough is not None and distance <= near_enough:
            reason = f"half of the forget rows are within {distance:.4g} nats per token of their levels"
            self.stop(f"{reason}, {near_enough:g} being near enough,", state, control)

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Look at an evaluation set."""
        for name in ("forget", "retain"):
            self._check(name, (metrics or {}).get(f"eval_{name}_nll"), "evaluation", state, control)

    def _check(
        self, name: str, nll_per_token: float | None, rows: str, state: TrainerState, control: TrainerControl
    ) -> None:
        if nll_per_token is None or not self._training:
            return
        if name == "forget" and self.forget_target is not None and nll_per_token >= self.forget_target:
            self.stop(
                f"forget NLL {nll_per_token:.4g} ({rows} rows) reached the target {self.forget_target:.4g}",
                state,
                control,
            )
        if name == "retain" and self.retain_limit is not None and nll_per_token > self.retain_limit:
            self.stop(
                f"retain NLL {nll_per_token:.4g} ({rows} rows) rose above the limit {self.retain_limit:.4g}",
                state,
                control,
            )


class LogWindow(TrainerCallback):
    """Starts the log of a run's components with the run, so that a second or resumed one counts its own steps alone.

    Args:
        start: drops what was summed up before.
    """

    def __init__(self, start: Callable[[], None]) -> None:
        self.start = start

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Drop the sums of whatever was computed before."""
        self.start()


class StepEnds(TrainerCallback):
    """Tells the step wrappers when a run begins, when the optimizer has stepped and when the run has ended.

    It stands before the callbacks that look at the weights, which then see them as the wrappers leave them.

    Args:
        restart: called when a run begins that is not resumed.
        resume: called when a run begins that is.
        after_step: called after every optimizer step that is taken, before anything is logged, saved or evaluated.
        finish: called at the end of the run.
        skipped: whether the optimizer left out the present step, as the scaler of fp16 has it do.
    """

    def __init__(
        self,
        restart: Callable[[], None],
        resume: Callable[[], None],
        after_step: Callable[[], None],
        finish: Callable[[], None],
        skipped: Callable[[], bool],
    ) -> None:
        self.restart, self.resume, self.after_step, self.finish = restart, resume, after_step, finish
        self.skipped = skipped
        self.dropped = False

    def drop(self) -> None:
        """The optimizer does not take the present step."""
        self.dropped = True

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """A run begins; one that is resumed goes on from what its checkpoint held."""
        if state.global_step == 0:
            self.restart()
        else:
            self.resume()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """The optimizer has stepped, or would have."""
        if not (self.dropped or self.skipped()):
            self.after_step()
        self.dropped = False

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """The run has ended."""
        self.finish()


class RowEpochs(TrainerCallback):
    """Tells the paired rows and their sampler which epoch begins, whatever loader and sampler they come through.

    accelerate's loaders tell either the sampler or the dataset, and after a resume in the middle of an epoch not
    always the sampler; a plain DataLoader tells nobody.

    Args:
        rows: gives the training set.
    """

    def __init__(self, rows: Callable[[], Any]) -> None:
        self._rows = rows

    def on_epoch_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        *,
        train_dataloader: Any = None,
        **kwargs: Any,
    ) -> None:
        """The same epoch that Trainer is about to name to its loader."""
        rows = self._rows()
        if is_stream(rows):  # Trainer does not know where the epoch of a stream ends; its loader has no sampler
            return
        epoch = int(state.epoch)
        if isinstance(train_dataloader, _HasEpoch):
            train_dataloader.set_epoch(epoch)
        rows.set_epoch(epoch)


@runtime_checkable
class _HasEpoch(Protocol):
    def set_epoch(self, epoch: int) -> None: ...


class SpareFrozenPrefix(TrainerCallback):
    """Leaves out of backward what lies below the first trainable weight, under activation checkpointing too.

    transformers makes embeddings require a gradient whenever checkpointing is switched on. Reentrant checkpointing
    needs that: an adapter in a block whose inputs need no gradient would not train. The other kind does not, and there
    it would have every frozen block recomputed and differentiated for a gradient that nobody reads.
    """

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, *, model: Any = None, **_: Any
    ) -> None:
        """Trainer's, after it has switched checkpointing on."""
        if args.activation_checkpointing and not (args.activation_checkpointing_kwargs or {}).get("use_reentrant"):
            model.disable_input_require_grads()


class DistributedCheckCallback(TrainerCallback):
    """Looks at the wrapped model once, before the first step.

    Args:
        wrapped: gives the model as the trainer calls it, and the setup that it was to be wrapped for.
    """

    def __init__(self, wrapped: Callable[[], tuple[nn.Module, DistributedSetup]]) -> None:
        self._wrapped = wrapped

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """The model has been prepared."""
        require_wrapped(*self._wrapped())


def stop_rules_of(handler: CallbackHandler) -> StopRules:
    """The stop rules of a run. Looked up, because a resumed run may have replaced the callback by a restored one."""
    return next(callback for callback in handler.callbacks if isinstance(callback, StopRules))
