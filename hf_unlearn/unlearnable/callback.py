"""`UnlearnableCallback`: logs a training of any Trainer row by row, so that rows can be deleted from it exactly."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate.utils import broadcast_object_list
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from transformers.utils import logging

from ..errors import input_error, require_choice, require_range
from ..model.weight_files import weight_file_hashes
from .batches import TrainedRows, require_known_batches
from .lines import LineWriter, read_lines
from .log import BEGUN, ENDED, FORMAT, RESUMED, SAVED, STEP, TrainingLog, read_log
from .places import make_salt, steps_file
from .settings import differences, training_settings, versions
from .start import read_start, save_random_state, save_start
from .trained_sets import RawRows, SetDigests, set_digests, write_digests

logger = logging.get_logger(__name__)


class UnlearnableCallback(TrainerCallback):
    """Logs which rows are trained in which optimizer step, and from where the training can be repeated.

    For `transformers.Trainer` and what is made of it: TRL's SFTTrainer and DPOTrainer, `UnlearningTrainer`
    (forget, retain and holdout rows are logged each by their role; `replay` is for the others). In its folder lie:
    a salt that only the owner reads; each row of the set as a salted digest (`hf_unlearn.data.text_digests`),
    never as text; for every rank a line a step with the places of the rows in every micro-batch; the settings and
    versions; the hash of the weights before the first step (theta_0), and the trained ones themselves; the random
    state; where Trainer's checkpoints lie. Lines are only added, and are with the operating system before the next
    step begins: a process that is killed loses none that a checkpoint follows. A resumed training goes on in the
    same folder, and what it trains again counts once.

    Args:
        folder: of the log, beside the trainer's output folder; the same when a training is resumed. All ranks see it.
        rows: the rows as they were before they were tokenised, in the order of the train set. Without them the
            set's own are taken: mostly tokens, by which no row is found that a request names by its text.
        keep_start: "weights" keeps the trained weights of theta_0 as safetensors, which for LoRA is the adapter;
            "hash" keeps the hash alone, where the script makes the same ones again.
        checkpoints: a checkpoint every this many steps, beside those that the trainer's arguments ask for. A replay
            starts at the last one before the row: the more, the less has to be trained again.

    Raises:
        ValueError: when training begins: a set whose rows cannot be told apart in a batch (a stream, packing), other
            rows than the train set's, a folder with the log of another training.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        rows: RawRows | Mapping[str, RawRows] | None = None,
        *,
        keep_start: Literal["weights", "hash"] = "weights",
        checkpoints: int | None = None,
    ) -> None:
        require_choice("keep_start", keep_start, ("weights", "hash"))
        if checkpoints is not None:
            require_range("checkpoints", checkpoints, at_least=1, whole=True)
        self.folder, self.rows = Path(folder), rows
        self.keep_start, self.checkpoints = keep_start, checkpoints
        self._resumes = False
        self._rows: TrainedRows | None = None
        self._log: LineWriter | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Write what is before the first step, or find it there and go on."""
        loader, model = kwargs["train_dataloader"], kwargs["model"]
        require_known_batches(loader, args, state)
        if self.rows is not None and getattr(args, "shuffle_dataset", False):
            raise _refused(
                "rows in the order of the train set",
                "shuffle_dataset=True, by which the trainer puts them in another",
                "shuffle the rows yourself, before they are given to the trainer and to the callback",
            )
        kept: dict[str, Tensor] = {}
        start: dict[str, str] = {}
        if state.global_step == 0:
            start, kept = read_start(model, keep=self.keep_start == "weights")
        settings = training_settings(args, model, state.max_steps, len(loader))
        _on_main(args, lambda: self._begin(state.global_step, loader.dataset, settings, start, kept))
        salt = make_salt(self.folder)
        file = steps_file(self.folder, args.process_index)
        if args.process_index > 0:
            _, problem = read_lines(file, salt)
            if problem is not None:
                raise _refused("a log that can be gone on with", problem, "take the file from a copy")
        if state.global_step == 0:
            save_random_state(self.folder, args.process_index)
        self._log = LineWriter(file, salt)
        if args.process_index > 0 or self._resumes:
            self._log.add({"event": RESUMED, "step": state.global_step})
        self._rows = TrainedRows(loader, args, state)
        if args.save_total_limit is not None:
            logger.warning(
                f"save_total_limit={args.save_total_limit} deletes checkpoints: a row that was trained before the "
                "first one left is deleted by a replay from the start."
            )

    def _begin(
        self,
        step: int,
        dataset: Any,
        settings: dict[str, Any],
        start: dict[str, str],
        kept: dict[str, Tensor],
    ) -> None:
        """On the main process: the first line, or the comparison with it."""
        salt = make_salt(self.folder)
        digests = set_digests(dataset, self.rows, salt)
        file = steps_file(self.folder, 0)
        lines, problem = read_lines(file, salt)
        self._resumes = bool(lines) or problem is not None
        if self._resumes:
            log = read_log(self.folder)  # which refuses a broken one
            _require_same(log, step, digests, settings, start)
            return
        if step > 0:
            raise _refused(
                f"the log of the first {step} steps in {self.folder.name}",
                "none",
                "give the callback the folder that it had then, or train from the start",
            )
        header = {"event": BEGUN, "format": FORMAT, "ranks": settings["processes"], "settings": settings}
        header |= {"versions": versions(), "start": start, "sets": write_digests(self.folder, digests)}
        save_start(self.folder, kept)
        writer = LineWriter(file, salt)
        writer.add(header)
        writer.close()

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """The loader is read from here on."""
        assert self._rows is not None
        self._epoch = int(state.epoch or 0)
        self._rows.begin_epoch()

    def on_substep_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """A micro-batch more."""
        assert self._rows is not None
        self._rows.micro_batch()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Log the step's rows."""
        assert self._rows is not None and self._log is not None
        rows = self._rows.step()
        self._log.add({"event": STEP, "step": state.global_step, "epoch": self._epoch, "rows": rows})
        if self.checkpoints is not None and state.global_step % self.checkpoints == 0:
            control.should_save = True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Log where the checkpoint lies, and what its weights are."""
        assert self._log is not None
        if args.process_index == 0:
            checkpoint = Path(args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
            saved = {"event": SAVED, "step": state.global_step, "whole": not args.save_only_model}
            saved["folder"] = os.path.relpath(checkpoint, self.folder)
            self._log.add({**saved, "weights": weight_file_hashes(checkpoint)})
        self._log.settle()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Log that the training came to its end, and with which weights."""
        assert self._log is not None
        end, _ = read_start(kwargs["model"], keep=False)
        self._log.add({"event": ENDED, "step": state.global_step, "sha256": end["sha256"]})
        self._log.close()


def require_same_rows(log: TrainingLog, digests: Mapping[str, SetDigests]) -> None:
    """Raise unless the sets are those of the log, row by row.

    Raises:
        ValueError: other roles, another number of rows, other rows or another order.
    """
    for role in sorted({*log.sets, *digests}):
        then, now = log.sets.get(role, ()), digests[role].rows if role in digests else ()
        if then != now:
            place = next((at for at, pair in enumerate(zip(then, now, strict=False)) if pair[0] != pair[1]), None)
            other = "" if place is None else f", the first that differs at place {place}"
            raise _refused(
                f"the {len(then)} rows of the {role} set that were logged, in their order",
                f"{len(now)}{other}",
                "give the trainer the same set, and rows= in the same format of columns",
            )
        if log.header["sets"][role]["tokens"] != digests[role].tokens:
            raise _refused(
                f"the rows of the {role} set as they were trained, token by token",
                "the same rows with other tokens or columns",
                "use the tokenizer, chat template and lengths of then",
            )


def require_same_settings(log: TrainingLog, settings: dict[str, Any]) -> None:
    """Raise unless the settings that decide the weights are those of the log.

    Raises:
        ValueError: with every one that differs.
    """
    changed = differences(log.header["settings"], settings)
    if changed:
        raise _refused(
            "the settings of the training that was logged", "; ".join(changed), "set them as they were then"
        )


def _require_same(
    log: TrainingLog, step: int, digests: dict[str, SetDigests], settings: dict[str, Any], start: dict[str, str]
) -> None:
    require_same_rows(log, digests)
    require_same_settings(log, settings)
    if step > log.total_steps:
        raise _refused(
            f"the log of the first {step} steps in {log.folder.name}",
            f"{log.total_steps} steps",
            "resume from a checkpoint that the log knows, or take the log from where the training ran",
        )
    if step == 0 and start["sha256"] != log.start:
        raise _refused(
            "the weights with which the logged training began",
            "others",
            "give each training a folder of its own; a training that goes on from the weights of another is another",
        )


def _on_main(args: TrainingArguments, call: Callable[[], None]) -> None:
    """Call on the main process; what it raises is raised by every rank, which would otherwise wait for it."""
    answer: list[Any] = [None]
    if args.process_index == 0:
        try:
            call()
        except (ValueError, OSError) as error:
            answer[0] = error
    if torch.distributed.is_initialized():
        broadcast_object_list(answer)
    if answer[0] is not None:
        raise answer[0]


def _refused(expected: str, got: str, fix: str) -> ValueError:
    return input_error(
        expected=expected,
        got=got,
        why="the log would say of rows what is not so, and a deletion by it would not be one",
        fix=fix,
    )
