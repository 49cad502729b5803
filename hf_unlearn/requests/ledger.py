"""The ledger of deletion requests: a folder with an append-only file, a salt, and the runs that were done."""

import os
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ..errors import input_error
from .chain import Entry, append_entry, read_chain
from .index import Index
from .state import OPENED, LedgerState, fold

LEDGER_FILE, SALT_FILE, LOCK_FILE, RUNS = "ledger.jsonl", "salt", ".lock", "runs"


class Ledger:
    """A ledger in a folder.

    Everything that it knows is in its entries; `state()` reads them anew. Rows are known by salted digests alone.

    Args:
        folder: of a ledger, as `Ledger.create` made it.

    Raises:
        ValueError: there is no ledger in the folder.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self._lock = FileLock(self.folder / LOCK_FILE)
        if not (self.folder / LEDGER_FILE).is_file():
            raise input_error(
                expected=f"the folder of a ledger, with its {LEDGER_FILE}",
                got=f"{self.folder.name}, where there is none",
                why="requests are kept there",
                fix="make one with hf-unlearn request open FOLDER",
            )

    @classmethod
    def create(cls, folder: str | os.PathLike[str], data: Mapping[str, Any]) -> "Ledger":
        """Make a ledger.

        Args:
            folder: of the ledger: a new or an empty one, or one in which `create` was cut off.
            data: of the entry `opened`.

        Raises:
            ValueError: there is a ledger already.
        """
        place = Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        with FileLock(place / LOCK_FILE):
            if (place / LEDGER_FILE).is_file() and read_chain(place / LEDGER_FILE)[0]:
                raise input_error(
                    expected="a folder without a ledger",
                    got=f"{place.name}, where there is one",
                    why="a second first entry would not follow the entries that are there",
                    fix="add requests to it, or name another folder",
                )
            if not (place / SALT_FILE).is_file():
                with open(os.open(place / SALT_FILE, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
                    stream.write(secrets.token_bytes(32))
            append_entry(place / LEDGER_FILE, None, OPENED, data)
        return cls(place)

    @property
    def salt(self) -> bytes:
        """Of the digests of rows; it is never exported.

        Raises:
            ValueError: its file is missing.
        """
        try:
            return (self.folder / SALT_FILE).read_bytes()
        except FileNotFoundError:
            raise input_error(
                expected=f"the ledger's {SALT_FILE}",
                got="a folder without it",
                why="without it no row can be known again as one that was asked to be deleted",
                fix="take the file from a copy of the ledger's folder; a new one would know no row",
            ) from None

    @property
    def runs(self) -> Path:
        """Folder of the runs that carried requests out."""
        return self.folder / RUNS

    def entries(self) -> list[Entry]:
        """All entries.

        Raises:
            ValueError: one was changed, or is missing.
        """
        entries, problems = read_chain(self.folder / LEDGER_FILE)
        if problems:
            raise input_error(
                expected="entries that follow one another, each with the hash of its content",
                got=f"{len(problems)} that do not: {problems[0]}",
                why="what the ledger says can no longer be relied on",
                fix="take the file from a copy; hf-unlearn request verify names every such line",
            )
        return entries

    def state(self) -> LedgerState:
        """What the entries say."""
        return fold(self.entries())

    def append(self, event: str, data: Mapping[str, Any]) -> Entry:
        """Add an entry, under the lock.

        Raises:
            ValueError: an entry was changed or is missing, at the end too.
        """
        index = Index(self.folder)
        with self.locked():
            seen, entries = index.seen(), self.entries()
            index.require_whole(entries, seen)
            entry = append_entry(self.folder / LEDGER_FILE, entries[-1] if entries else None, event, data)
            index.remember(entry)
        return entry

    def requests_with(self, digests: Iterable[str]) -> dict[str, list[str]]:
        """The ids of the requests that each row is in; rows that are in none are left out.

        Args:
            digests: of rows, salted.

        Raises:
            ValueError: an entry was changed or is missing, at the end too.
        """
        index = Index(self.folder)
        seen, entries = index.seen(), self.entries()  # in this order: other processes add between them
        index.require_whole(entries, seen)
        return index.requests_with(digests, entries)

    @contextmanager
    def locked(self, wait: float = 10.0) -> Iterator[None]:
        """Hold the ledger alone; a process that ends, however it ends, lets go of it.

        Args:
            wait: seconds for which to wait for another process.

        Raises:
            ValueError: another process held it all that time.
        """
        try:
            self._lock.acquire(timeout=wait)
        except Timeout:
            raise input_error(
                expected="a ledger that no other process is working on",
                got=f"one that another process has held for {wait:g} seconds",
                why="two runs on one ledger would each start from the other's former weights",
                fix="wait for it to end; hf-unlearn request status tells what it does",
            ) from None
        try:
            yield
        finally:
            self._lock.release()
