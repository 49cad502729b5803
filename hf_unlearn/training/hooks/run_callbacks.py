"""The callbacks that every run has, in the order in which they are to see it."""

from collections.abc import Callable, Mapping
from functools import partial

from ..model_setup import log_vocabulary
from ..optimizer_check import OptimizerCheckCallback, require_trained
from ..step.component_log import ComponentLog
from ..step.overflow import look_for_overflow, searches_scale
from ..step.wrapped_step import WrappedStep
from .callbacks import (
    DistributedCheckCallback,
    LogWindow,
    RowEpochs,
    SpareFrozenPrefix,
    StepEnds,
    StopRules,
    stop_rules_of,
)
from .first_step import FirstStepLevels
from .nonfinite_guard import NonFiniteGuard
from .recalibration import Recalibration
from .run_observer import RunObserver
from .trainer_view import TrainerView
from .training_signs import TrainingSigns


def add_run_callbacks(
    trainer: TrainerView,
    steps: WrappedStep,
    step_log: ComponentLog,
    observer: RunObserver,
    resumed_from: Callable[[], str | None],
) -> None:
    """Add what stops a run, what opens and closes its steps, what checks it and what watches it.

    Args:
        trainer: held weakly; Trainer has built it, with the callbacks of the user.
        steps: step wrappers and weighting; they come before the user's callbacks and the reports, which then see
            the weights as the wrappers leave them.
        step_log: of the components of the loss.
        observer: comes last, and sees what the others did.
        resumed_from: folder of the checkpoint that a resumed run goes on from.
    """
    handler, args = trainer.callback_handler, trainer.args
    watched = isinstance(trainer.eval_dataset, Mapping) and args.eval_strategy != "no"
    evaluated = list(trainer.eval_dataset) if watched else []
    handler.add_callback(StopRules(evaluated=evaluated, level_distance=args.stop_at_level))
    restart = partial(steps.restart, lambda: trainer.unlearning_objective.retain_weight)

    def resume() -> None:
        folder = resumed_from()
        assert folder is not None, "called for a run that goes on from a checkpoint"
        steps.load(folder)

    def skipped() -> bool:
        return trainer.accelerator.optimizer_step_was_skipped

    ends = StepEnds(restart, resume, steps.after_step, steps.finish, skipped)
    # After Trainer's own DefaultFlowCallback, which only says when to log, evaluate and save, and before all others.
    handler.callbacks.insert(1, ends)
    if args.stop_on_nonfinite:
        handler.add_callback(_nonfinite_guard(trainer, step_log, ends))
    if args.recalibrate_steps is not None:
        handler.add_callback(Recalibration(trainer, steps.levels, args.recalibrate_steps))
    require_trained(trainer.optimizer, trainer.model)
    split = trainer.distributed.sharded or trainer.distributed.deepspeed
    handler.add_callback(OptimizerCheckCallback(split))
    handler.add_callback(RowEpochs(lambda: trainer.train_dataset))
    handler.add_callback(SpareFrozenPrefix())
    handler.add_callback(DistributedCheckCallback(lambda: (trainer.model_wrapped, trainer.distributed)))
    handler.add_callback(LogWindow(step_log.start))
    handler.add_callback(
        FirstStepLevels(
            lambda: step_log.means(trainer.accelerator),
            lambda: log_vocabulary(trainer.model),
            lambda: None if trainer.baseline is None else trainer.baseline.holdout_nll,
        )
    )
    handler.add_callback(TrainingSigns(observer.record))
    handler.add_callback(observer)


def _nonfinite_guard(trainer: TrainerView, step_log: ComponentLog, ends: StepEnds) -> NonFiniteGuard:
    """What drops a step whose loss or gradient is not finite, and ends the run."""

    def stop(reason: str) -> None:
        stop_rules_of(trainer.callback_handler).stop(reason, trainer.state, trainer.control)

    return NonFiniteGuard(
        lambda: step_log.finite(trainer.accelerator),
        lambda: step_log.finite_gradient() or searches_scale(trainer.accelerator),
        ends.drop,
        stop,
        lambda: look_for_overflow(trainer.model_wrapped),
    )
