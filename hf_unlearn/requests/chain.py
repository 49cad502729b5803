"""Lines that are only ever added to a file, each with the hash of the one before: a changed line is noticed."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

DIGESTS = "digests"  # of rows, in an entry's data: a list
FIRST = "0" * 64  # what the first line names as the hash before it


@dataclass(frozen=True)
class Entry:
    """A line of the ledger.

    Attributes:
        number: from 1.
        time: UTC, ISO 8601, to the second.
        event: what happened.
        data: of the event, as JSON takes it.
        previous: hash of the line before.
        hash: SHA-256 of all the other attributes, digests of rows as the hash of their list.
    """

    number: int
    time: str
    event: str
    data: dict[str, Any]
    previous: str
    hash: str


def read_chain(file: Path, *, exported: bool = False) -> tuple[list[Entry], list[str]]:
    """The entries of a file, and what is wrong with them: a changed, missing or foreign line, by its number.

    A last line without an end is one that a killed process did not finish: no entry, and nothing wrong.

    Args:
        file: of the chain.
        exported: whether digests of rows may stand there as their hash alone.
    """
    entries: list[Entry] = []
    problems: list[str] = []
    previous = FIRST
    for number, line in enumerate(_whole_lines(file), 1):
        entry = _parsed(line)
        if entry is None:
            problems.append(f"line {number} of {file.name} is not an entry")
            previous = ""
            continue
        if not exported and isinstance(entry.data.get(DIGESTS), str):
            problems.append(f"line {number} of {file.name} has lost the digests of its rows")
        if entry.hash != entry_hash(asdict(entry)):
            problems.append(f"line {number} of {file.name} was changed: its content has another hash")
        if entry.number != number or (previous and entry.previous != previous):
            problems.append(f"line {number} of {file.name} does not follow the one before it")
        entries.append(entry)
        previous = entry.hash
    return entries, problems


def append_entry(file: Path, last: Entry | None, event: str, data: Mapping[str, Any]) -> Entry:
    """Add a line and see to it that it is on the disk; who calls holds the lock.

    Args:
        file: of the chain, which may be missing; what a killed process left of a line is removed.
        last: entry of the file.
        event: what happened.
        data: of it.
    """
    body: dict[str, Any] = {
        "number": 1 if last is None else last.number + 1,
        "time": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "event": event,
        "data": dict(data),
        "previous": FIRST if last is None else last.hash,
    }
    entry = Entry(**body, hash=entry_hash(body))
    with open(file, "a+b") as stream:
        stream.seek(0)
        content = stream.read()
        stream.truncate(content.rfind(b"\n") + 1)
        stream.write(json.dumps(asdict(entry), ensure_ascii=False, allow_nan=False).encode() + b"\n")
        stream.flush()
        os.fsync(stream.fileno())
    return entry


def entry_hash(body: Mapping[str, Any]) -> str:
    """SHA-256 of an entry's attributes but the hash itself, as JSON with sorted keys and no spaces.

    Digests of rows go in as the hash of their list, so that an entry can be checked without them.
    """
    kept = {name: value for name, value in body.items() if name != "hash"}
    return _json_hash({**kept, "data": without_digests(body["data"])})


def without_digests(data: Mapping[str, Any]) -> dict[str, Any]:
    """The data of an entry with the digests of its rows, if it has any, as the hash of their list."""
    hashed = {DIGESTS: _json_hash(data[DIGESTS])} if isinstance(data.get(DIGESTS), list) else {}
    return {**data, **hashed}


def _json_hash(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _whole_lines(file: Path) -> Iterator[bytes]:
    if not file.is_file():
        return iter(())
    return iter(file.read_bytes().split(b"\n")[:-1])


def _parsed(line: bytes) -> Entry | None:
    try:
        entry = Entry(**json.loads(line))
    except (ValueError, TypeError):
        return None
    known = isinstance(entry.number, int) and isinstance(entry.data, dict)
    return entry if known and all(isinstance(text, str) for text in (entry.time, entry.event, entry.hash)) else None
