"""Does planned runs one after another, each in a process of its own; what is done already is not done again."""

import contextlib
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from ...errors import input_error
from .planned_run import PlannedRun

_SECONDS_TO_END = 10.0  # that an interrupted run has for what it is writing, before it is told once more


def run_series(runs: Sequence[PlannedRun]) -> list[Path]:
    """Do runs one after another, each as `hf-unlearn train` in a process of its own.

    A run that is whole in its folder is skipped, one that was killed goes on from its last whole checkpoint (or anew,
    where it has saved none), and where one fails the others are done all the same. What happens is told on standard
    error, the failures at the end.

    Args:
        runs: in order, each with a folder of its own.

    Returns:
        the folders of the runs that are whole, in order; those of runs that failed are missing.

    Raises:
        ValueError: a folder that is named twice, or holds another run, before any run is started.
        KeyboardInterrupt: after the process of the present run has ended.
    """
    done = done_before(runs)
    failed: dict[str, int] = {}
    for number, run in enumerate(runs, 1):
        told = f"[{number}/{len(runs)}] {run.name}"
        if run.folder in done:
            _tell(f"{told}: done already")
            continue
        words = _resuming(run)
        _tell(f"{told}{': goes on from its last checkpoint' if words else ''}")
        run.mark(done=False)
        status = _in_a_process(run, words)
        if status:
            failed[run.name] = status
            _tell(f"{told}: failed (exit status {status}); the others are done first")
            continue
        run.mark(done=True)
        done.add(run.folder)
    if failed:
        names = ", ".join(f"{name} (exit status {status})" for name, status in failed.items())
        _tell(f"{len(failed)} of {len(runs)} runs failed: {names}. The same command tries them again.")
    return [run.folder for run in runs if run.folder in done]


def done_before(runs: Sequence[PlannedRun]) -> set[Path]:
    """The folders of the runs that are whole already; raises as `run_series` does."""
    folders = [run.folder.absolute() for run in runs]
    twice = [run.name for run, folder in zip(runs, folders, strict=True) if folders.count(folder) > 1]
    if twice:
        raise input_error(
            expected="a folder of its own for each run",
            got=f"{twice[0]} twice",
            why="the second run would be taken for the first one, and skipped",
            fix="name each method and each seed once",
        )
    return {run.folder for run in runs if run.is_done()}


def _resuming(run: PlannedRun) -> list[str]:
    """The words with which a run goes on that was begun earlier."""
    if not run.folder.is_dir():
        return []
    # Libraries that take seconds, for a folder that is there already.
    from ...training.checkpoints.selection import whole_steps
    from ..phases.plan import FOLDER as PHASES

    # A run of phases goes on from its last finished one, and begins anew by itself where there is none.
    begun = (run.folder / PHASES).is_dir() or whole_steps(run.folder)
    return ["--resume_from_checkpoint", "true"] if begun else []


def _in_a_process(run: PlannedRun, more: Sequence[str]) -> int:
    """The exit status of a run, as a shell gives it."""
    words = ["train", *run.arguments, "--output_dir", str(run.folder), *more]
    with _told_to_end_as_interrupted():
        process = subprocess.Popen([sys.executable, "-m", "hf_unlearn.cli", *words])
        try:
            status = process.wait()
        except KeyboardInterrupt:
            _end(process)
            raise
    return status if status >= 0 else 128 - status


@contextlib.contextmanager
def _told_to_end_as_interrupted() -> Iterator[None]:
    """Let SIGTERM, by which schedulers end a job, interrupt: the run would outlive this process otherwise."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread is told of signals
        return
    former = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End a run. Ctrl-C in a terminal has reached it as well, and it may be writing: it is given time first."""
    for end in (lambda: None, process.terminate, process.kill):
        end()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_SECONDS_TO_END)
            return


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
