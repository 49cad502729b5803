"""Deletes rows exactly: the part of a training that they could reach is trained again with their places left empty."""

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.utils import logging

from ..data.pairing import ForgetRetainDataset
from ..errors import input_error
from ..model.weight_files import weight_file_hashes
from .batches import TrainedRows, require_known_batches
from .callback import UnlearnableCallback, require_same_rows, require_same_settings
from .log import Rows, TrainingLog, read_log
from .settings import differences, training_settings, versions
from .start import load_random_state, require_start
from .trained_sets import RawRows, set_digests

logger = logging.get_logger(__name__)


def replay(
    trainer: Trainer,
    folder: str | os.PathLike[str],
    without: Rows = (),
    *,
    rows: RawRows | None = None,
    from_start: bool = False,
) -> Trainer:
    """Train a logged training again without some of its rows, from the last checkpoint before any of them.

    The places of the rows stay empty: a batch has fewer rows, a micro-batch without any is left out (a mean over
    micro-batches is over those that are left), a step without any moves no weight. All else is as it was: order,
    learning rates, optimizer, random numbers. The weights are, bit for bit, those of a training from theta_0 in
    which the places were empty from the start: on the same machine with the same versions, on the CPU (a GPU was
    not tried; it would take `full_determinism`). Rows that were deleted earlier are named again: `without` is
    all of them.

    A collator that draws random numbers itself (masking) is exact `from_start` only: Trainer does not restore what a
    checkpoint's next batches had drawn.

    Args:
        trainer: a new one, made by the script that made the first: same model, rows, arguments, but another
            `output_dir` (or save_strategy="no"). Its own UnlearnableCallback, if it has one, is taken off, and its
            `rows` are used.
        folder: of the log.
        without: rows to leave out, in any accepted format, or digests of the log. With none, the training is repeated
            from the start as it was, which shows whether this machine repeats it.
        rows: as UnlearnableCallback takes them.
        from_start: begin at theta_0 although there is a later checkpoint.

    Returns:
        The trainer, trained.

    Raises:
        ValueError: rows that were never in the set; a trainer that is not that of the log (rows, settings, start), or
            has been trained; a checkpoint that was changed; an order of rows that differs; UnlearningTrainer.
    """
    log = read_log(folder)
    if not log.header:
        raise _refused("the log of UnlearnableCallback", "a folder of cohorts", "use drop_cohort or retrain_cohort")
    places = _require_rows(log, without)
    position, given = _take_callback(trainer, rows)
    checkpoint = None if from_start else _checkpoint(log, places)
    _require_fresh(trainer, log)
    _warn_of_versions(log)
    # Ranks wait for one another's gradients, and DeepSpeed counts micro-batches itself.
    filled = trainer.args.world_size > 1 or trainer.is_deepspeed_enabled
    callback = _Replayed(log, places, given, filled=filled)
    trainer.callback_handler.callbacks.insert(position, callback)
    with _empty_batches(trainer):
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    trainer.remove_callback(callback)
    return trainer


class _Replayed(TrainerCallback):
    """Compares trainer and log before the first step, and the order of the rows in every one."""

    def __init__(self, log: TrainingLog, places: Collection[int], rows: RawRows | None, *, filled: bool) -> None:
        self._log, self._places, self._rows, self._filled = log, places, rows, filled

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        loader = kwargs["train_dataloader"]
        require_known_batches(loader, args, state)
        if isinstance(loader.dataset, ForgetRetainDataset):
            raise _refused(
                "a training of rows, each in a place of its own",
                "UnlearningTrainer, whose rows are paired with one another",
                "replay the training before it, and unlearn the other rows again",
            )
        require_same_rows(self._log, set_digests(loader.dataset, self._rows, self._log.salt))
        require_same_settings(self._log, training_settings(args, kwargs["model"], state.max_steps, len(loader)))
        if self._filled:
            self._require_rows_everywhere(state.max_steps)
        require_start(kwargs["model"], self._log, from_start=state.global_step == 0)
        if state.global_step == 0:
            load_random_state(self._log.folder, args.process_index)
        self._trained = TrainedRows(loader, args, state, self._places)

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._trained.begin_epoch()

    def on_substep_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._trained.micro_batch()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        rows = self._trained.step()["train"]
        if state.global_step > self._log.total_steps:
            return  # the logged training ended earlier
        if rows != self._log.steps[state.global_step - 1].rows["train"][args.process_index]:
            raise _refused(
                f"the rows that step {state.global_step} had then, in their order",
                "others",
                "make the trainer by the script that made it then: with its sampler, and no seed set after it",
            )

    def _require_rows_everywhere(self, max_steps: int) -> None:
        places = set(self._places)
        batches = [batch for step in self._log.steps for rank in step.rows["train"] for batch in rank]
        if self._log.total_steps < max_steps or any(places.issuperset(batch) for batch in batches):
            raise _refused(
                "on several ranks and under DeepSpeed, a row that is left in every micro-batch",
                "a micro-batch of which none is left, or a log that ends before the training does",
                "replay with a batch size and log of one process, or choose another way of deleting these rows",
            )


@contextmanager
def _empty_batches(trainer: Trainer) -> Iterator[None]:
    """Trainer's steps with micro-batches of no rows, which it has no notion of: they are counted and not trained."""
    train, count = trainer.training_step, trainer._get_num_items_in_batch
    operations, track = trainer.floating_point_ops, trainer._track_num_input_tokens
    filled = [0]

    def count_items(batches: list[Any], device: Any) -> Any:
        with_rows = [batch for batch in batches if len(batch)]
        filled[0] = len(with_rows)
        return count(with_rows, device)

    def step(model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Tensor:
        if not len(inputs):
            nothing: Tensor = trainer._tr_loss.new_zeros(())
            return nothing
        trainer.current_gradient_accumulation_steps = filled[0]  # a mean over the micro-batches that there are
        return train(model, inputs, *args, **kwargs)

    own: dict[str, Any] = {
        "training_step": step,
        "_get_num_items_in_batch": count_items,
        "floating_point_ops": lambda inputs: operations(inputs) if len(inputs) else 0,
        "_track_num_input_tokens": lambda inputs: track(inputs) if len(inputs) else None,
    }
    vars(trainer).update(own)
    try:
        yield
    finally:
        for name in own:
            del vars(trainer)[name]


def _require_rows(log: TrainingLog, without: Rows) -> list[int]:
    digests = log.digests(without)
    unknown = set(digests).difference(log.sets.get("train", ()))
    if unknown and len(unknown) == len(set(digests)):
        raise _refused(
            "rows that the training had",
            f"{len(unknown)} that it never had",
            "nothing has to be deleted: steps_of(rows) of the log is empty",
        )
    if unknown:
        logger.warning(f"{len(unknown)} of the rows to leave out were never in the training.")
    return log.places(digests)


def _checkpoint(log: TrainingLog, places: Collection[int]) -> Path | None:
    """The checkpoint to go on from, as it was written; None for theta_0."""
    if not places:
        return None
    first = log.first_step([log.sets["train"][place] for place in places])
    path = log.checkpoint_before(log.total_steps + 1 if first is None else first, whole=True)
    if path is None:
        return None
    saved = next(line for line in log.saved.values() if os.path.normpath(log.folder / line["folder"]) == str(path))
    if weight_file_hashes(path) != saved["weights"]:
        raise _refused(
            f"{path.name} with the weights that it was saved with",
            "others",
            "take it from a copy, or replay with from_start=True",
        )
    return path


def _take_callback(trainer: Trainer, rows: RawRows | None) -> tuple[int, Any]:
    """Take the trainer's own UnlearnableCallback off: the place where it was, and the rows."""
    callbacks = trainer.callback_handler.callbacks
    for position, callback in enumerate(callbacks):
        if isinstance(callback, UnlearnableCallback):
            del callbacks[position]
            return position, callback.rows if rows is None else rows
    return len(callbacks), rows


def _require_fresh(trainer: Trainer, log: TrainingLog) -> None:
    if trainer.state.global_step > 0:
        raise _refused(
            "a new trainer",
            "one that was trained",
            "make it again by the script that made it then",
        )
    output = Path(trainer.args.output_dir).absolute()
    folders = {Path(os.path.normpath(log.folder.absolute() / line["folder"])).parent for line in log.saved.values()}
    if output in folders and trainer.args.save_strategy != "no":
        raise _refused(
            "an output_dir of its own, or save_strategy='no'",
            f"{output.name}, where the checkpoints of the logged training lie",
            "they would be overwritten, and later requests need those from before their rows; set another output_dir",
        )


def _warn_of_versions(log: TrainingLog) -> None:
    changed = differences(log.header["versions"], versions())
    if changed:
        logger.warning(
            f"The log was written with other versions ({'; '.join(changed)}): the replay may differ in bits."
        )


def _refused(expected: str, got: str, fix: str) -> ValueError:
    return input_error(
        expected=expected,
        got=got,
        why="the weights would be those of another training, not of this one without the rows",
        fix=fix,
    )
