"""Chooses the checkpoint that a run goes on from: the last whole one of the run that was last started in a folder."""

import shutil
from collections.abc import Collection
from pathlib import Path

from transformers.utils import logging

from ...errors import full_disk_error, input_error
from .mark import checkpoints_in, fault_of, read_mark
from .run_starts import RunStarts

logger = logging.get_logger(__name__)


def last_checkpoint(folder: str | Path) -> Path:
    """The last whole checkpoint of the run that was last started in a folder, with a warning of those left out.

    Raises:
        ValueError: there is none.
    """
    return Path(select_checkpoint(Path(folder), whole_steps(Path(folder))))


def whole_steps(folder: Path) -> list[int]:
    """Steps of the whole checkpoints of the run that was last started in a folder."""
    return [step for step, path in checkpoints_in(folder).items() if _reason_against(folder, step, path) is None]


def select_checkpoint(folder: Path, steps: Collection[int]) -> str:
    """The checkpoint of the last of these steps, with a warning of those that are left out.

    Args:
        folder: output folder.
        steps: of whole checkpoints, on the disks of all ranks.
    """
    last = max(steps, default=-1)
    for step, path in checkpoints_in(folder).items():
        if step > last:
            reason = _reason_against(folder, step, path) or "it is not whole on the disks of all nodes"
            logger.warning(f"{path} is left out: {reason}.")
    if last < 0:
        raise no_checkpoint(folder, True)
    return str(folder / f"checkpoint-{last}")


def _reason_against(folder: Path, step: int, path: Path) -> str | None:
    starts = RunStarts.of_folder(folder)
    if starts is not None and not starts.has(read_mark(path), step):
        return "it is of an earlier run than the one that was last started in this folder"
    fault = fault_of(path)
    return None if fault is None else f"it is not whole ({fault})"


def no_checkpoint(folder: Path, asked: object) -> ValueError:
    """The error (not raised) of a checkpoint that is not there."""
    there = {step: _reason_against(folder, step, path) for step, path in checkpoints_in(folder).items()}
    left_out = "; ".join(f"checkpoint-{step}: {reason}" for step, reason in there.items() if reason)
    others = f" ({left_out})" if asked is True and left_out else ""
    return input_error(
        expected="resume_from_checkpoint with the folder of a checkpoint, or true for the last whole one of a run",
        got=f"{str(asked).lower() if asked is True else repr(asked)}, where there is none{others}",
        why="the run would start anew, or fail after the first evaluation",
        fix=f"look for checkpoint-<step> in {folder} and name it, or leave the argument out",
    )


def full_disk(place: Path, error: BaseException) -> OSError:
    """The error (not raised) of a save that found no room, with the checkpoint that there is to go on from."""
    whole = whole_steps(place)
    last = f"the last whole checkpoint is checkpoint-{whole[-1]}" if whole else "there is no whole checkpoint yet"
    return full_disk_error(
        expected=f"room for a save in {place}",
        got=f"a full disk ({type(error).__name__}), with {shutil.disk_usage(place).free / 2**20:.0f} MB free",
        why=f"what was begun is taken back, and the run ends here; {last}",
        fix="make room, set save_total_limit, and go on with resume_from_checkpoint=True (on the command line "
        "--resume_from_checkpoint true)",
    )
