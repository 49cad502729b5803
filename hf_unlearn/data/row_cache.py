"""Where rows and their token ids lie on disk while a run needs them: a folder of the run that only its owner reads."""

import contextlib
import os
import pickle
import secrets
import shutil
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
from datasets.fingerprint import Hasher
from transformers.utils import logging

from ..errors import full_disk_error, is_full_disk
from .provenance import source_of

try:
    import fcntl
except ImportError:  # Windows, where no file is removed that another process has open
    fcntl = None  # type: ignore[assignment]

logger = logging.get_logger(__name__)

ROW_CACHE = ".rows"  # in a run's output folder
_IN_USE = "in_use"


class RowCache:
    """A folder for the rows of a run, made when it is first asked for and removed when its last user closes it.

    Every process of a run, and every object in it, holds a shared lock for as long as it uses the folder; the system
    lets go of the locks of a process that is killed. Whoever finds no lock at the start clears what a killed run has
    left, and whoever holds the last one at the end removes the folder.

    Args:
        folder: of which only the last part is made private.
        keep: leave it for the next run of the same rows.
    """

    def __init__(self, folder: str | Path, *, keep: bool = False) -> None:
        self._folder, self._keep = Path(folder), keep
        self._close: weakref.finalize[Any, Any] | None = None

    @property
    def folder(self) -> Path:
        """The folder, which only its owner can look into."""
        if self._close is None:
            missing = sum(not parent.exists() for parent in self._folder.parents)
            with file_errors_told("a run's rows and token ids", self._folder):
                lock = _opened(self._folder, clear=not self._keep)
                if missing:  # for whoever closes it last, who may have found the folders there
                    os.pwrite(lock, str(missing).encode(), 0)
            # At the exit of the process too, whatever it ends with.
            self._close = weakref.finalize(self, _closed, self._folder, lock, self._keep, os.getpid())
        return self._folder

    @property
    def description(self) -> str:
        """Where the rows are and for how long, in a line for people."""
        until = (
            "they stay there" if self._keep else "they are removed when the run ends (--keep_cache true keeps them)"
        )
        return f"Rows and token ids lie in {self.folder}, which only you can look into; {until}."

    def file_for(self, rows: datasets.Dataset, encoder: Any) -> str:
        """The file of what an encoder makes of rows; another process that asks the same gets the same.

        Args:
            rows: whose content is known to `datasets` by a fingerprint.
            encoder: with all that its result depends on.
        """
        try:
            name = Hasher.hash([rows._fingerprint, encoder])
        except (pickle.PicklingError, TypeError, AttributeError):  # a tokenizer that cannot be pickled
            name = secrets.token_hex(8)
        return str(self.folder / f"{name}.arrow")

    @contextlib.contextmanager
    def closed_on_error(self) -> Iterator[None]:
        """Close it where an error ends the work, which keeps the objects of that work alive for a while."""
        done = False
        try:
            yield
            done = True
        finally:
            if not done:
                self.close()

    def close(self) -> None:
        """Let go of the folder; its files stay readable to those who have them open."""
        if self._close is not None:
            self._close()
            self._close = None


@contextlib.contextmanager
def file_errors_told(what: str, folder: str | Path | None) -> Iterator[None]:
    """Say what could not be written and where, of which Arrow says neither.

    Args:
        what: as the subject of a sentence.
        folder: None for what is kept in memory.
    """
    try:
        yield
    except OSError as error:
        raise unwritten(what, folder, error) from error


def unwritten(what: str, folder: str | Path | None, error: OSError) -> OSError:
    """The error (not raised) of rows or token ids that cannot be written, in four parts where the disk is full."""
    if folder is None or not is_full_disk(error):
        return OSError(f"{what} cannot be written to {folder}: {error}")
    return full_disk_error(
        expected=f"room for {what} in {folder}",
        got=f"a full disk ({error})",
        why="a run reads them from there; no step was taken, and what was begun is not used",
        fix="make room and start again, or name another output_dir (for temporary files: TMPDIR)",
    )


def warn_of_leftovers(rows: datasets.Dataset) -> None:
    """Say that forget rows of a script's own lie in the cache of `datasets`, which keeps them."""
    if source_of(rows).origin != "local":
        return
    shared = Path(datasets.config.HF_DATASETS_CACHE).resolve()
    files = [Path(file["filename"]) for file in rows.cache_files]
    kept = [file for file in files if file.resolve().is_relative_to(shared)]
    if kept:
        logger.warning_once(
            f"The forget rows lie in the cache of datasets too, where they stay: {kept[0].parent} (mode "
            f"{kept[0].stat().st_mode & 0o777:o}). Remove it after the run, or load them with "
            "hf_unlearn.data.sources.load_rows, which leaves nothing there."
        )


def _opened(folder: Path, *, clear: bool) -> int:
    """Make a folder and take a shared lock in it; what a killed run has left goes first."""
    while True:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.chmod(0o700)  # it may be there with other rights
        lock = os.open(folder / _IN_USE, os.O_CREAT | os.O_RDWR, 0o600)
        if clear and _locked(lock, alone=True):
            _clear(folder)
        _locked(lock, alone=False)
        with contextlib.suppress(FileNotFoundError):
            if os.fstat(lock).st_ino == (folder / _IN_USE).stat().st_ino:
                return lock
        os.close(lock)  # of a folder that its last user was just removing


def _closed(folder: Path, lock: int, keep: bool, owner: int) -> None:
    if os.getpid() != owner:
        return  # a data-loader worker, whose copy of the lock is its parent's
    last = _locked(lock, alone=True)
    # On a file system without locks, the first process of a node answers for all of them, which end with it.
    if not keep and (os.environ.get("LOCAL_RANK", "0") == "0" if last is None else last):
        shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):  # the run has written something else
            for parent in folder.parents[: int(os.pread(lock, 8, 0) or 0)]:
                parent.rmdir()
    os.close(lock)


def _locked(lock: int, *, alone: bool) -> bool | None:
    """Take a lock, alone or with others; False where others hold it, None on a file system without locks."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB if alone else fcntl.LOCK_SH)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _clear(folder: Path) -> None:
    for path in folder.iterdir():
        if path.name != _IN_USE:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
