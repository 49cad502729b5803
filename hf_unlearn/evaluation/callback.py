"""`UnlearningEvalCallback`: a suite run at every evaluation of a Trainer, its metrics logged like any other."""

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.utils import logging

from ..errors import input_error
from ..progress import phase
from ..results.evaluation_result import EvaluationResult
from .evaluate import evaluate, require_evaluable
from .suite import Suite

logger = logging.get_logger(__name__)


class UnlearningEvalCallback(TrainerCallback):
    """Runs a suite whenever the Trainer evaluates.

    Its metrics go where the Trainer's own go: to `report_to`, into the log history and into the metrics that
    `metric_for_best_model` is chosen from, with "eval_" and the suite's name in front (`eval_tofu_forget_quality`). An
    `UnlearningTrainer` takes the callback as it is; a plain `Trainer` is passed as `trainer`.

    Args:
        suite: what to measure.
        batch_size: rows of a batch; the run's `per_device_eval_batch_size` if None.
        fluency_model: as in `evaluate`.
        every: run it at the first of so many evaluations, for suites that take long; a resumed run counts anew.
        trainer: a plain `Trainer` that it is added to.

    Attributes:
        results: the last EvaluationResult of each global step.
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
        if not isinstance(suite, Suite):
            raise input_error(
                expected="a suite of rows, as harmful(...), copyright(...), tofu(...) and custom(...) make them",
                got=f"a {type(suite).__name__}",
                why="it says what to measure and on which rows",
                fix="call one of these with its rows, and pass what it returns",
            )
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
        self._start()

    def _start(self) -> None:
        self._evaluations = 0
        self._step = -1
        self._sets: set[frozenset[str]] = set()  # names of the figures of every set that this evaluation has been at

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        """Refuse a run in which the suite could not be run, or its figures would reach nobody."""
        self._require_trainer()
        if args.eval_strategy == "no":
            raise input_error(
                expected='eval_strategy="steps" or "epoch" with UnlearningEvalCallback',
                got='eval_strategy="no"',
                why="the suite is run when the Trainer evaluates",
                fix='set eval_strategy="epoch" and pass an eval_dataset',
            )
        best = str(args.metric_for_best_model)
        if self._every > 1 and best.removeprefix("eval_").startswith(f"{self._suite.name}_"):
            raise input_error(
                expected=f"every=1 with metric_for_best_model={best!r}",
                got=f"every={self._every}",
                why="an evaluation without the suite's figures cannot be compared with the best one",
                fix="pass every=1 and raise eval_steps, or choose the best model by another metric",
            )
        self._require_suite(model)
        self._start()

    def _require_suite(self, model: Any) -> None:
        """What the first evaluation would refuse, refused before the first step."""
        assert self.trainer is not None
        fluent = self._fluency_model
        if fluent is not None and not {*map(id, fluent.parameters())}.isdisjoint(map(id, model.parameters())):
            raise input_error(
                expected="a fluency model of its own",
                got="one that shares weights with the model in training",
                why="gibberish would be judged by the model that writes it",
                fix="load the model before unlearning a second time",
            )
        require_evaluable(model, self.trainer.processing_class, self._suite, self.trainer.accelerator, fluent)

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        metrics: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Run the suite, once an evaluation however many sets it has."""
        self._require_trainer()
        logged = {} if metrics is None else metrics
        names = frozenset(logged)
        # Another set of the same evaluation, or one that it has been at already: then it is a new evaluation of this
        # step, perhaps of other weights (the best ones, loaded at the end).
        if state.global_step != self._step or names in self._sets:
            self._step, self._sets = state.global_step, set()
            if self._evaluations % self._every == 0:
                # With the first set alone: a callback that counts figures (early stopping) would count each set's.
                logged.update(self._run(args, state.global_step, model))
            self._evaluations += 1
        self._sets.add(names)

    def _run(self, args: TrainingArguments, step: int, model: Any) -> dict[str, float]:
        assert self.trainer is not None
        shown = self.trainer.is_local_process_zero()
        with phase(f"{self._suite.name} suite at step {step}", one_line=True, shown=shown):
            self.results[step] = evaluate(
                model,
                self.trainer.processing_class,
                self._suite,
                batch_size=self._batch_size or args.per_device_eval_batch_size,
                accelerator=self.trainer.accelerator,
                fluency_model=self._fluency_model,
                seed=args.seed,
            )
        for warning in self.results[step].warnings:
            if self.trainer.is_world_process_zero():
                logger.warning_once(f"{self._suite.name} suite: {warning}")
        figures = self.results[step].values()
        logged = {f"eval_{self._suite.name}_{name}": value for name, value in figures.items()}
        self.trainer.log(dict(logged))
        return logged

    def _require_trainer(self) -> None:
        if self.trainer is None:
            raise input_error(
                expected="trainer=... for an UnlearningEvalCallback of a plain Trainer",
                got="a callback that knows no trainer",
                why="its figures are logged through the trainer",
                fix="trainer.add_callback(UnlearningEvalCallback(suite, trainer=trainer)), or use UnlearningTrainer",
            )
