"""A piece of a sweep's work in a process of its own: what it is told, how it ends, and what is left where it fails.

A process that dies, of whatever, is one run that failed; its memory, on the accelerator too, is free again. It is
started as `python -m hf_unlearn.tasks.sweep.job KIND FOLDER`.
"""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...results.files import atomic_write_text, read_json

JOB_FILE, ERROR_FILE, LOG_FILE = "job.json", "error.txt", "log.txt"
REFUSED = 2  # exit status of a process that could not do what it was told, and has said why


class JobFailed(RuntimeError):
    """A process ended without what it was to leave."""


def run_job(kind: str, folder: Path, job: Mapping[str, Any]) -> None:
    """Do a piece of work in a process of its own, and wait for it.

    Args:
        kind: of the jobs in worker.py.
        folder: where it writes; its output goes to log.txt in there.
        job: what it is told, as JSON takes it.

    Raises:
        ValueError: it was refused, for the reason that the process has given.
        JobFailed: it died.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ERROR_FILE).unlink(missing_ok=True)
    atomic_write_text(folder / JOB_FILE, json.dumps(job, default=str) + "\n").chmod(0o600)
    status = run_command([sys.executable, "-m", f"{__package__}.job", kind, str(folder)], folder / LOG_FILE)
    if status == REFUSED and (folder / ERROR_FILE).is_file():
        raise ValueError((folder / ERROR_FILE).read_text(encoding="utf-8"))
    if status:
        raise JobFailed(failure_words(status, folder / LOG_FILE))


def run_command(command: Sequence[str], log: Path) -> int:
    """The exit status of a command whose output goes to a file; it ends with this process, however that ends."""
    with log.open("wb") as output:
        # The other end of its standard input is this process's: a kill closes it, which `main` watches.
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT)
        try:
            return process.wait()
        finally:
            process.kill()
            process.wait()


def end_with_parent() -> None:
    """End this process as soon as the one that started it is gone. Waits for that, so it needs a thread of its own."""
    while os.read(sys.stdin.fileno(), 1):  # of the descriptor itself: a buffered read would hold a lock at the end
        pass
    os._exit(1)


def failure_words(status: int, log: Path) -> str:
    """Why a process failed: the last line that it wrote, or the signal that ended it."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    killed = f"ended by signal {-status}" if status < 0 else f"exit status {status}"
    return f"{killed}: {lines[-1][:300]}" if lines else killed


def main(kind: str, folder: str) -> int:
    """Do what job.json in a folder says; arguments and rows that will not do are told in error.txt there."""
    threading.Thread(target=end_with_parent, daemon=True).start()
    from .worker import JOBS  # it takes seconds, in which the parent may already go

    try:
        JOBS[kind](Path(folder), read_json(Path(folder) / JOB_FILE))
    except ValueError as error:
        atomic_write_text(Path(folder) / ERROR_FILE, str(error))
        return REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
