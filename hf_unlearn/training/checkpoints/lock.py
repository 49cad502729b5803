"""One run at a time in an output folder: a lock that the operating system takes back when the process dies."""

import contextlib
import errno
import os
import socket
from pathlib import Path

from filelock import FileLock, Timeout
from transformers.utils import logging

from ...errors import input_error

logger = logging.get_logger(__name__)

LOCK_FILE = ".run.lock"
# Workers of a data loader outlive a killed run by up to 5 seconds, and hold its lock as long.
_PATIENCE = 10.0


def lock_folder(folder: str | Path) -> FileLock | None:
    """Take the lock of an output folder; trainers of one process share it.

    Args:
        folder: is made where it is missing.

    Returns:
        what holds the lock; None on a file system without locks, which is said.

    Raises:
        ValueError: another process holds it.
    """
    path = Path(folder).absolute() / LOCK_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    # The same object for every trainer of a process, whichever thread asks; it counts how many hold it.
    lock = FileLock(path, timeout=_PATIENCE, is_singleton=True, thread_local=False)
    try:
        lock.acquire()
    except Timeout:
        raise input_error(
            expected=f"an output_dir that no other run is writing to: {folder}",
            got=f"one whose lock {_holder(path)} holds",
            why="two runs in one folder would mix their weights, checkpoints and records",
            fix="name another output_dir, or wait for the other run to end (in a notebook: trainer.end())",
        ) from None
    except (NotImplementedError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP):
            raise
        logger.warning(
            f"The file system of {folder} has no locks ({error}): nothing keeps a second run out of this folder."
        )
        return None
    with contextlib.suppress(OSError):  # the disk is full: the lock is held without its holder's name
        path.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
    return lock


def _holder(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8") or "another process"
    except (OSError, UnicodeDecodeError):
        return "another process"
