"""The output folder of a run: one run at a time, saves whole or absent, and what a run may go on from."""

import contextlib
import shutil
import weakref
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from filelock import FileLock
from peft import PeftModel
from safetensors import SafetensorError
from transformers.utils import logging

from ...errors import input_error, is_full_disk
from ...model.fingerprints import hash_parts, hash_tokenizer
from ...results.files import atomic_write
from ...results.record import RECORD_FILE, RunRecord, load_record
from ..hooks.trainer_view import TrainerView
from .comparison import adapter_differences, changed_length, differences, in_words
from .lock import lock_folder
from .mark import STATE_FILE, checkpoints_in, fault_of, has_optimizer, read_mark, step_of, write_mark
from .moves import UNFINISHED, move_files, put_in_place, recover, rotate
from .run_starts import RunStarts
from .selection import full_disk, no_checkpoint, select_checkpoint, whole_steps
from .sharded_states import save_adapter_config, save_gathered_model

logger = logging.get_logger(__name__)


class RunFolder:
    """What a trainer does with its output folder.

    Every save is written into a hidden folder beside its place and moved there when it is complete.

    Args:
        trainer: held weakly.
        describe: gives the run's record, filled in as it is now.
    """

    def __init__(self, trainer: TrainerView, describe: Callable[[], RunRecord]) -> None:
        self._trainer, self._describe = trainer, describe
        self._lock: FileLock | None = None
        self._opened: str | None = None  # the checkpoint that was checked last
        self._ready = False  # for a run that has not begun yet
        self._starts = RunStarts.anew()
        self._staging: Path | None = None  # while a checkpoint is written

    @property
    def _accelerator(self) -> Accelerator:
        return self._trainer.accelerator

    @property
    def _folder(self) -> Path:
        return Path(self._trainer.args.output_dir)

    # Before a run

    def begin(self, resume: str | bool | None, *, trial: bool) -> str | None:
        """`open` for a run that begins now, where nobody has done that for this run."""
        if not self._ready:
            self.open(resume, trial=trial)
        self._ready = False
        return self._opened

    def open(self, resume: str | bool | None, *, trial: bool = False) -> str | None:
        """Take the folder for a run, and find what it goes on from. All ranks have to ask, and get one answer.

        Args:
            resume: the folder of a checkpoint; True for the last whole one of the run that was last started here.
            trial: whether it is one of a search, which saves into a folder of its own.

        Returns:
            the checkpoint's folder; None for a run that begins anew.

        Raises:
            ValueError: another process trains into the folder, there is no whole checkpoint, or it is of another run.
        """
        last = resume is True or str(resume).lower() == "true"
        asked = None if resume in (None, False) or str(resume).lower() == "false" else str(resume)
        # Where ranks have disks of their own, a killed run may have finished a checkpoint on some of them only.
        common = sorted(set.intersection(*map(set, gather_object([whole_steps(self._folder) if last else []]))))
        answer: list[Any] = [None, None, None]
        if self._accelerator.is_main_process:
            try:
                self._take()
                answer[0] = select_checkpoint(self._folder, common) if last else asked
                answer[1] = self._checked(answer[0], trial=trial)
            except (ValueError, OSError) as error:
                answer[2] = full_disk(self._folder, error) if is_full_disk(error) else error
        if self._accelerator.num_processes > 1:
            broadcast_object_list(answer)
        checkpoint, starts, refusal = answer
        if refusal is not None:
            raise refusal
        self._opened, self._starts, self._ready = checkpoint, starts, True
        return checkpoint

    def resumed_from(self) -> str | None:
        """The checkpoint that the present run goes on from; None where it begins anew."""
        return self._opened

    def close(self) -> None:
        """Let other processes train into the folder."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _take(self) -> None:
        """Lock the folder, and put away what a killed run has left there."""
        if self._lock is not None and Path(self._lock.lock_file).parent == self._folder.absolute():
            return
        self.close()
        self._lock = lock_folder(self._folder)
        if self._lock is not None:
            # Not at exit: the system does that, and a forked child would unlock its parent's folder.
            weakref.finalize(self, self._lock.release).atexit = False
        recover(self._folder)

    def _checked(self, checkpoint: str | None, *, trial: bool) -> RunStarts:
        """The starts of the run; raises where the checkpoint is not whole or of another run."""
        if checkpoint is None:
            starts = RunStarts.anew()
            others = [] if trial else list(checkpoints_in(self._folder))
            if others:
                logger.warning(
                    f"{self._folder} holds checkpoints of an earlier run (steps {_listed(others)}). This run begins "
                    "anew: it replaces those of the steps that it saves itself, leaves the others, and "
                    "resume_from_checkpoint=True goes on from its own alone. To go on with the earlier run, name one."
                )
        else:
            folder = Path(checkpoint)
            if not folder.is_dir():
                raise no_checkpoint(self._folder, checkpoint)
            self._require_same_run(folder)
            mark = read_mark(folder)
            starts = RunStarts.resumed(mark, step_of(folder) or 0 if mark is None else mark.step)
        if not trial:
            starts.write(self._folder)
        return starts

    def _require_same_run(self, folder: Path) -> None:
        fault = fault_of(folder)
        if fault is not None:
            raise input_error(
                expected="a whole checkpoint to go on from",
                got=f"{folder}, where {fault}",
                why="it was cut off while it was written, or changed since",
                fix=f"resume_from_checkpoint=True takes the last whole one of {folder.parent}, or name another",
            )
        if not (folder / RECORD_FILE).is_file():
            logger.warning(f"{folder} has no {RECORD_FILE}: it cannot be compared with the run that goes on from it.")
            return
        saved, present, args = load_record(folder), self._describe().as_saved(), self._trainer.args
        model = self._accelerator.unwrap_model(self._trainer.model)
        changed = [*self._words(folder), *differences(saved, present, any_batch=args.auto_find_batch_size)]
        changed += adapter_differences(folder, model.peft_config if isinstance(model, PeftModel) else {})
        if changed:
            then, now = in_words(changed)
            raise input_error(
                expected=f"the run that wrote {folder} ({then})",
                got=f"another one ({now})",
                why="it would go on as a run that never was: its card would describe the one and its weights be both",
                fix="resume with what it was started with, or start anew from its model",
            )
        if not has_optimizer(folder):
            logger.warning(
                f"{folder} was written with save_only_model=True: the optimizer, the learning rate's schedule and the "
                "random numbers begin anew, so that the run ends elsewhere than one that was not interrupted."
            )
        for name, then, now in changed_length(saved, present):
            logger.warning(
                f"{name} was {then or 'the default'} when {folder} was written and is now {now}: the "
                "learning rate goes on along the schedule of the new length."
            )

    def _words(self, folder: Path) -> list[tuple[str, Any, Any]]:
        mark = read_mark(folder)
        if mark is None:
            return []
        pairs = zip(("tokenizer", "chat template"), (mark.tokenizer, mark.chat_template), self._hashes(), strict=True)
        return [(name, f"hash {then[:12]}", f"hash {now[:12]}") for name, then, now in pairs if then != now]

    def _hashes(self) -> tuple[str, str]:
        """Of the tokenizer and of its chat template."""
        tokenizer = self._trainer.processing_class
        return hash_tokenizer(tokenizer), hash_parts({"template": getattr(tokenizer, "chat_template", None)})

    # Saves

    def place(self, run_dir: str) -> str:
        """Where Trainer puts checkpoints: in its own folder, or beside it while one is being written."""
        return run_dir if self._staging is None else str(self._staging)

    @contextlib.contextmanager
    def writing_checkpoint(self, run_dir: str, writers: Iterable[Callable[[str], None]]) -> Iterator[None]:
        """Trainer's `_save_checkpoint` inside writes one checkpoint, which is in its place afterwards.

        Args:
            run_dir: where checkpoints go.
            writers: write what Trainer knows nothing of into a checkpoint's folder.
        """
        trainer, state = self._trainer, self._trainer.state
        name = f"checkpoint-{state.global_step}"
        place = Path(run_dir, name)
        with self._writing(place.parent) as staging:
            self._staging = staging
            try:
                yield
            finally:
                self._staging = None
            staged = staging / name
            self._name_best(place)
            if trainer.args.should_save:
                for write in writers:
                    write(str(staged))
                state.save_to_json(str(staged / STATE_FILE))
            self._accelerator.wait_for_everyone()
            if trainer.args.should_save:  # a process a node, where nodes have disks of their own
                starts = [list(start) for start in self._starts.starts]
                write_mark(staged, state.global_step, starts, *self._hashes())
                put_in_place(staged, place)
            self._accelerator.wait_for_everyone()
        if trainer.args.should_save:
            rotate(Path(run_dir), self._starts, trainer.args.save_total_limit, place, state.best_model_checkpoint)

    def save_state(self) -> None:
        """Trainer's `save_state`, by which a process that is killed leaves the former file."""
        if self._accelerator.is_main_process:
            atomic_write(self._folder / STATE_FILE, self._trainer.state.save_to_json)

    def _name_best(self, place: Path) -> None:
        """Trainer looks for the best checkpoint beside the one that is written; the others lie beside its place."""
        state = self._trainer.state
        if not state.best_global_step:
            return
        best = place.parent / f"checkpoint-{state.best_global_step}"
        # One of an earlier run, which Trainer would take, is not this run's best.
        if best == place or (best.is_dir() and self._starts.has(read_mark(best), state.best_global_step)):
            state.best_model_checkpoint = str(best)

    @contextlib.contextmanager
    def writing_model(self, folder: str | None) -> Iterator[str]:
        """A folder to save a model into, whose files are in `folder` (`args.output_dir` if None) afterwards.

        Until the record is written again, which comes last, the folder has none, and is no finished run's.
        """
        place = Path(folder or self._folder)
        if self._staging is not None:  # of a checkpoint, which is put in its place as a whole
            yield str(place)
            save_adapter_config(self._trainer, place)
            return
        answer: list[Any] = [None]
        if self._accelerator.is_main_process and place.absolute() == self._folder.absolute():
            answer = [_error_of(self._take)]
        if self._accelerator.num_processes > 1:
            broadcast_object_list(answer)
        if answer[0] is not None:
            raise answer[0]
        with self._writing(place) as staging:
            yield str(staging)
            save_gathered_model(self._trainer, staging)
            self._accelerator.wait_for_everyone()
            if self._trainer.args.should_save and staging.is_dir():
                move_files(staging, place)
            self._accelerator.wait_for_everyone()

    @contextlib.contextmanager
    def _writing(self, place: Path) -> Iterator[Path]:
        """An empty folder beside its place to write into, which is gone afterwards, also when the disk is full."""
        staging, local_main = place / UNFINISHED, self._accelerator.is_local_main_process
        if local_main:
            shutil.rmtree(staging, ignore_errors=True)
        self._accelerator.wait_for_everyone()
        try:
            yield staging
        except (OSError, RuntimeError, SafetensorError) as error:
            # In the rank that failed: the others wait for it, and are ended by the launcher.
            shutil.rmtree(staging, ignore_errors=True)
            if is_full_disk(error):
                raise full_disk(place, error) from error
            raise
        finally:
            if local_main:
                shutil.rmtree(staging, ignore_errors=True)


def _error_of(call: Callable[[], None]) -> Exception | None:
    try:
        call()
    except (ValueError, OSError) as error:
        return error
    return None


def _listed(steps: list[int]) -> str:
    return ", ".join(map(str, steps[:5])) + (f", ... {steps[-1]}" if len(steps) > 5 else "")
