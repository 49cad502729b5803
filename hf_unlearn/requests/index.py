"""A ledger's entries as SQLite tables, made from them at any time, and the memory of how far the ledger once went."""

import logging
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from ..errors import input_error
from .chain import Entry
from .state import fold

logger = logging.getLogger(__name__)

INDEX_FILE = "index.sqlite"
_TABLES = """
CREATE TABLE IF NOT EXISTS seen (number INTEGER NOT NULL, hash TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS entries (number INTEGER PRIMARY KEY, time TEXT, event TEXT, hash TEXT);
CREATE TABLE IF NOT EXISTS requests (id TEXT PRIMARY KEY, rows INTEGER, received TEXT, due TEXT, status TEXT, way TEXT,
    batch INTEGER);
CREATE TABLE IF NOT EXISTS digests (digest TEXT, request TEXT, PRIMARY KEY (digest, request)) WITHOUT ROWID;
"""
_AT_ONCE = 500  # digests of a query; SQLite takes 999 values at least


class Index:
    """The index of a ledger.

    It may be deleted at any time; only its memory of the last entry is lost, by which a ledger whose end was cut off
    is noticed.

    Args:
        folder: of the ledger.
    """

    def __init__(self, folder: Path) -> None:
        self.file = folder / INDEX_FILE

    def seen(self) -> tuple[int, str] | None:
        """Number and hash of the last entry that was ever seen; None where nothing is remembered."""
        if not self.file.is_file():
            return None
        with self._open() as database:
            return database.execute("SELECT number, hash FROM seen").fetchone()

    def remember(self, entry: Entry) -> None:
        """Keep the number and hash of an entry that was added."""
        with self._open() as database:
            _remember(database, entry)

    def require_whole(self, entries: Sequence[Entry], seen: tuple[int, str] | None) -> None:
        """Raise where an entry that was seen is not there any more.

        Args:
            entries: of the ledger, read after `seen`.
            seen: what `seen()` said.

        Raises:
            ValueError: the end was cut off, or written again.
        """
        lost = cut_off(entries, seen)
        if lost is not None:
            raise input_error(
                expected="a ledger that ends no earlier than it once did",
                got=lost,
                why="requests that were received or done would be forgotten",
                fix=f"take ledger.jsonl from a copy; only where it is certain that the later entries are void, remove "
                f"{INDEX_FILE}",
            )

    def requests_with(self, digests: Iterable[str], entries: Sequence[Entry]) -> dict[str, list[str]]:
        """The requests that each row is in, in their order; a row that is in none is left out.

        Args:
            digests: of rows, salted.
            entries: of the ledger, by which the tables are made anew where they end elsewhere.
        """
        wanted, requests = list(dict.fromkeys(digests)), dict[str, list[str]]()
        with self._open() as database:
            _rebuild(database, entries)
            for start in range(0, len(wanted), _AT_ONCE):
                part = wanted[start : start + _AT_ONCE]
                marks = ", ".join("?" * len(part))
                query = (
                    "SELECT digest, request FROM digests JOIN requests ON requests.id = digests.request "
                    f"WHERE digest IN ({marks}) ORDER BY requests.rowid"
                )
                for digest, request in database.execute(query, part):
                    requests.setdefault(digest, []).append(request)
        return requests

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """A connection whose changes are kept together, or not at all."""
        if not self.file.exists():  # as only its owner can read it: it names digests
            os.close(os.open(self.file, os.O_WRONLY | os.O_CREAT, 0o600))
        try:
            database = self._connected()
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):  # locked, or a disk that is full: no damage
                raise OSError(f"{INDEX_FILE} cannot be used ({error})") from error
            logger.warning(
                "%s could not be read (%s) and is made anew; an end of the ledger that was cut off before is not "
                "noticed by it any more.",
                INDEX_FILE,
                error,
            )
            self.file.unlink()
            database = self._connected()
        try:
            with closing(database), database:
                yield database
        except sqlite3.DatabaseError as error:  # a lock that is not let go of, a full disk, a page that is damaged
            words = f"{INDEX_FILE} cannot be used ({error}); where it is damaged, remove it: it is made anew"
            raise OSError(words) from error

    def _connected(self) -> sqlite3.Connection:
        database = sqlite3.connect(self.file, timeout=30)
        try:
            database.executescript(_TABLES)
        except sqlite3.Error:
            database.close()
            raise
        return database


def cut_off(entries: Sequence[Entry], seen: tuple[int, str] | None) -> str | None:
    """How the entries contradict what was seen of them, as the end of a sentence; None where they do not."""
    if seen is None:
        return None
    number, digest = seen
    if len(entries) < number:
        return f"one that ends with entry {len(entries)}, where there was an entry {number} before"
    if entries[number - 1].hash != digest:
        return f"one whose entry {number} is another than before"
    return None


def _remember(database: sqlite3.Connection, entry: Entry) -> None:
    row = database.execute("SELECT number FROM seen").fetchone()
    if row is None or row[0] < entry.number:
        database.execute("DELETE FROM seen")
        database.execute("INSERT INTO seen VALUES (?, ?)", (entry.number, entry.hash))


def _rebuild(database: sqlite3.Connection, entries: Sequence[Entry]) -> None:
    """The tables of these entries, unless they end with the last of them already."""
    last = database.execute("SELECT number, hash FROM entries ORDER BY number DESC LIMIT 1").fetchone()
    if not entries or last == (entries[-1].number, entries[-1].hash):
        return
    for table in ("entries", "requests", "digests"):
        database.execute(f"DELETE FROM {table}")
    rows = [(entry.number, entry.time, entry.event, entry.hash) for entry in entries]
    database.executemany("INSERT INTO entries VALUES (?, ?, ?, ?)", rows)
    requests = fold(entries).requests.values()
    database.executemany(
        "INSERT INTO requests VALUES (?, ?, ?, ?, ?, ?, ?)",
        [(one.id, one.rows, one.received, one.due, one.status, one.way, one.batch) for one in requests],
    )
    pairs = [(digest, one.id) for one in requests for digest in one.digests]
    database.executemany("INSERT OR IGNORE INTO digests VALUES (?, ?)", pairs)
    _remember(database, entries[-1])
