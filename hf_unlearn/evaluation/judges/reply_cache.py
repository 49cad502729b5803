"""The disk cache of an endpoint's replies, so that a killed evaluation does not pay twice. It holds no text."""

import contextlib
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

from huggingface_hub import constants
from transformers.utils import logging

from .replies import Reply

_TABLE = "CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, share REAL, by_likelihood INTEGER)"

logger = logging.get_logger(__name__)


class ReplyCache:
    """Replies by the SHA-256 of what was asked: a share and how it was read, nothing else.

    A reply is on disk as soon as it is kept. Errors are not kept: they are asked again. A cache that cannot be read or
    written costs money and no result, so that it is told and the run goes on.

    Args:
        path: of the file; its folder is made. None for `judge_replies.sqlite` in the Hugging Face cache.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        default = Path(constants.HF_HOME) / "hf_unlearn" / "judge_replies.sqlite"
        self.path = default if path is None else Path(path).expanduser()
        self._lock = threading.Lock()

    def read(self, keys: list[str]) -> dict[str, Reply]:
        """What is kept under those keys."""
        found = {}
        with self._opened() as file:
            if file is not None:
                for key in keys:
                    row = file.execute("SELECT share, by_likelihood FROM replies WHERE key = ?", (key,)).fetchone()
                    if row is not None:
                        found[key] = Reply(float(row[0]), by_likelihood=bool(row[1]))
        return found

    def keep(self, key: str, reply: Reply) -> None:
        """Write a reply that has a share."""
        with self._lock, self._opened() as file:
            if file is not None:
                row = (key, reply.share, int(reply.by_likelihood))
                try:
                    file.execute("INSERT OR REPLACE INTO replies VALUES (?, ?, ?)", row)
                except sqlite3.Error as error:  # a full disk, say
                    logger.warning(f"The judge's cache {self.path.name} cannot be written ({type(error).__name__}).")

    @contextlib.contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection | None]:
        """The file with its table, or None; what was written inside is on disk afterwards."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = sqlite3.connect(self.path, timeout=30)
            file.execute(_TABLE)
        except (OSError, sqlite3.Error) as error:
            logger.warning(f"The judge's cache {self.path.name} cannot be used ({type(error).__name__}).")
            yield None
            return
        with contextlib.closing(file), file:
            yield file
