"""A suite at every evaluation of a training run, logged like any other figure. What is measured, the suite knows."""

from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..errors import input_error
from .evaluate import evaluate
from .result import EvaluationResult
from .suite import Suite


class UnlearningEvalCallback(TrainerCallback):
    """Runs a suite whenever the Trainer evaluates.

    Its metrics go where the Trainer's own go: to `report_to`, into the log history and into the metrics that
    `metric_for_best_model` is chosen from, under their names with "eval_" in front (`eval_forget_quality`). An
    `UnlearningTrainer` takes the callback as it is; a plain `Trainer` is passed as `trainer`.

    Args:
        suite: what to measure.
        batch_size: rows of a batch; the run's `per_device_eval_batch_size` if None.
        fluency_model: as in `evaluate`.
        every: run it at every so-manieth evaluation, for suites that take long; the last figures are not repeated.
        trainer: a plain `Trainer` that it is added to.

    Attributes:
        results: every EvaluationResult of the run by global step.
    """

    def __init__(
        self,
        suite: Suite,
        *,
        batch_size: int | None = None,
        fluency_model: Any | None = None,
        every: int = 1,
        trainer: Any | None = None,
    ) -> None:
        if every < 1:
            raise input_error(
                expected="every to be a whole number from 1 on",
                got=repr(every),
                why="the suite would never be run",
                fix="pass every=1 to run it at each evaluation",
            )
        self._suite, self._batch_size, self._fluency_model, self._every = suite, batch_size, fluency_model, every
        self.trainer = trainer
        self.results: dict[int, EvaluationResult] = {}
        self._evaluations: dict[int, dict[str, float]] = {}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Refuse a run in which the suite would never be run, or its figures would reach nobody."""
        if self.trainer is None:
            raise _no_trainer()
        if args.eval_strategy == "no":
            raise input_error(
                expected='eval_strategy="steps" or "epoch" with UnlearningEvalCallback',
                got='eval_strategy="no"',
                why="the suite is run when the Trainer evaluates",
                fix='set eval_strategy="epoch" and pass an eval_dataset',
            )

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        metrics: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Run the suite, once a step however many evaluation sets there are."""
        if self.trainer is None:
            raise _no_trainer()
        step = state.global_step
        if step not in self._evaluations:
            self._evaluations[step] = {}
            if (len(self._evaluations) - 1) % self._every == 0:
                self._evaluations[step] = self._run(args, step, model, self.trainer.log)
        if metrics is not None:
            metrics.update(self._evaluations[step])

    def _run(
        self, args: TrainingArguments, step: int, model: Any, log: Callable[[dict[str, float]], None]
    ) -> dict[str, float]:
        assert self.trainer is not None
        self.results[step] = evaluate(
            model,
            self.trainer.processing_class,
            self._suite,
            batch_size=self._batch_size or args.per_device_eval_batch_size,
            accelerator=self.trainer.accelerator,
            fluency_model=self._fluency_model,
            seed=args.seed,
        )
        found = {f"eval_{name}": value for name, value in self.results[step].values().items()}
        log(dict(found))
        return found


def _no_trainer() -> ValueError:
    return input_error(
        expected="trainer=... for an UnlearningEvalCallback of a plain Trainer",
        got="a callback that knows no trainer",
        why="its figures are logged through the trainer",
        fix="trainer.add_callback(UnlearningEvalCallback(suite, trainer=trainer)), or use UnlearningTrainer",
    )
