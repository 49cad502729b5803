"""Where a ledger finds the rows of its requests: the place they lie at, or the rows themselves, encrypted."""

import hashlib
import io
import json
import os
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa

from ..data.sources import load_rows
from ..data.text_digests import text_digests
from ..errors import input_error
from ..results.files import atomic_write, read_json
from .keys import fernet_of, key_id, ledger_key, new_key
from .ledger import Ledger

PLACES_FILE, ROWS = "places.json", "rows"
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")  # it names a file


class RowsStore:
    """The rows of a ledger's requests.

    Their text never lies unencrypted in the ledger's folder: it holds a place (`places.json`, which only its owner can
    read) or, where asked, the rows encrypted with a key that is kept elsewhere.

    Args:
        ledger: whose salt makes the digests, and whose entries say which rows a request has.
    """

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger

    def put(
        self,
        request_id: str,
        source: str | os.PathLike[str],
        columns: Mapping[str, str] | None = None,
        split: str = "train",
        encrypt: bool = False,
    ) -> list[str]:
        """Keep where the rows of a request are, or keep them encrypted. It adds no entry.

        For a request that the ledger has already, the rows must be the same ones: so a file that was moved gets its
        new place.

        Args:
            request_id: up to 64 letters, digits, dots, dashes and underscores.
            source: a file, a folder written by `save_to_disk`, or the id of a Hub dataset, as `load_rows` takes it.
            columns: old name -> new name, as `load_rows` takes them.
            split: of a saved DatasetDict or a Hub dataset.
            encrypt: keep the rows themselves, with the key of HF_UNLEARN_LEDGER_KEY or HF_UNLEARN_LEDGER_KEY_FILE.

        Returns:
            The salted digest of every row, in order.

        Raises:
            ValueError: of the id, of rows that cannot be loaded, are none, or are there twice, of the key, or of rows
                that are not those of the request.
        """
        if not _ID.fullmatch(request_id):
            raise input_error(
                expected="an id of at most 64 letters, digits, dots, dashes and underscores, the first no sign",
                got=f"one of {len(request_id)} characters with others among them",
                why="it names files of the ledger",
                fix="keep the requester's own number as --reference, which may be any text",
            )
        fernet = fernet_of(ledger_key(self.ledger.folder)) if encrypt else None  # before anything is read
        place = _place(source, columns, split)
        rows = _load(place)
        digests = list(text_digests(rows, self.ledger.salt))
        _require_each_once(digests)
        with self.ledger.locked():
            known = self.ledger.state().requests.get(request_id)
            if known is not None:
                _require_same(request_id, digests, known.digests)
            if fernet is not None:
                file = self._encrypted(request_id)
                content = fernet.encrypt(_to_bytes(rows))
                _write_private(file, content)
                key = key_id(ledger_key(self.ledger.folder))
                place = {"encrypted": file.name, "key": key, "sha256": hashlib.sha256(content).hexdigest()}
            self._write_places({**self._places(), request_id: place})
            if fernet is None:
                self._encrypted(request_id).unlink(missing_ok=True)
        return digests

    def erase(self, request_id: str) -> None:
        """Forget where the rows of a request lie, and delete them where the ledger has them encrypted."""
        with self.ledger.locked():
            self._encrypted(request_id).unlink(missing_ok=True)
            self._write_places({name: place for name, place in self._places().items() if name != request_id})

    def rows(self, request_id: str) -> datasets.Dataset:
        """The rows of a request, in the order of its digests; decrypted ones are in memory alone.

        Raises:
            ValueError: the ledger has no such request or no place of it, the rows cannot be loaded or decrypted, or
                they are not those that were asked to be deleted.
        """
        request = self.ledger.state().requests.get(request_id)
        place = self._places().get(request_id)
        if request is None or place is None:
            raise input_error(
                expected="a request of the ledger, whose rows have a place",
                got=f"{request_id}, " + ("which it does not have" if request is None else f"not in {PLACES_FILE}"),
                why="its rows are needed to delete them and to verify that they are gone",
                fix="see hf-unlearn request status for the ids" if request is None else _again(request_id),
            )
        rows = self._decrypted(request_id, place) if "encrypted" in place else _load(place)
        digests = list(text_digests(rows, self.ledger.salt))
        _require_same(request_id, digests, request.digests)
        if digests == request.digests:
            return rows
        at = {digest: position for position, digest in enumerate(digests)}
        return rows.select([at[digest] for digest in request.digests])

    @staticmethod
    def new_key() -> str:
        """A key for `encrypt`. Keep it where the ledger is not; without it nobody can read the rows again."""
        return new_key()

    def _encrypted(self, request_id: str) -> Path:
        return self.ledger.folder / ROWS / f"{request_id}.fernet"

    def _decrypted(self, request_id: str, place: Mapping[str, str]) -> datasets.Dataset:
        key = ledger_key(self.ledger.folder)
        fernet, file = fernet_of(key), self._encrypted(request_id)
        content = file.read_bytes() if file.is_file() else b""
        got = None
        if not content:
            got = f"none, or an empty one, at {ROWS}/{file.name}"
        elif hashlib.sha256(content).hexdigest() != place["sha256"]:
            got = f"{ROWS}/{file.name} with other bytes than were written"
        if got is not None:
            raise input_error(
                expected=f"the encrypted rows of {request_id} as they were written",
                got=got,
                why="they cannot be decrypted, and so not be deleted or verified",
                fix=f"take the file from a copy, or, with the rows at hand, {_again(request_id)}",
            )
        if key_id(key) != place["key"]:
            raise input_error(
                expected=f"the key that the rows of {request_id} were encrypted with",
                got="another key",
                why="they cannot be decrypted, and so not be deleted or verified",
                fix="set HF_UNLEARN_LEDGER_KEY or HF_UNLEARN_LEDGER_KEY_FILE to the key of that day",
            )
        return _from_bytes(fernet.decrypt(content))

    def _places(self) -> dict[str, dict[str, Any]]:
        file = self.ledger.folder / PLACES_FILE
        if not file.is_file():
            return {}
        try:
            places = read_json(file)
        except ValueError:
            places = None
        if not isinstance(places, dict) or not all(isinstance(place, dict) for place in places.values()):
            raise input_error(
                expected=f"{PLACES_FILE} as the ledger wrote it: the place of each request's rows",
                got="a file that was changed into something else",
                why="the rows of all requests are found by it",
                fix="take the file from a copy, or remove it and give the place of each request's rows again",
            )
        return places

    def _write_places(self, places: Mapping[str, Any]) -> None:
        _write_private(self.ledger.folder / PLACES_FILE, (json.dumps(places, indent=2) + "\n").encode())


def _place(source: str | os.PathLike[str], columns: Mapping[str, str] | None, split: str) -> dict[str, Any]:
    path = Path(source).expanduser()
    text = str(path.absolute()) if path.exists() else os.fspath(source)
    return {"source": text, "columns": None if columns is None else dict(columns), "split": split}


def _load(place: Mapping[str, Any]) -> datasets.Dataset:
    rows = load_rows(place["source"], columns=place["columns"], split=place["split"])
    if not len(rows):
        raise input_error(
            expected="at least one row to delete",
            got="a set without rows",
            why="a request of nothing would count as done",
            fix="check the file and the split",
        )
    return rows


def _require_each_once(digests: list[str]) -> None:
    twice = sum(count - 1 for count in Counter(digests).values())
    if twice:
        first = next(row for row, digest in enumerate(digests) if digests.index(digest) < row)
        raise input_error(
            expected="every row once",
            got=f"{twice} of {len(digests)} that say what an earlier one says (the first is row {first + 1})",
            why="it would count twice in the training and in every figure",
            fix="remove the second ones",
        )


def _require_same(request_id: str, digests: list[str], wanted: list[str]) -> None:
    missing, foreign = len({*wanted} - {*digests}), len({*digests} - {*wanted})
    if missing or foreign or len(digests) != len(wanted):
        raise input_error(
            expected=f"the {len(wanted)} rows of request {request_id}",
            got=f"{len(digests)}, of which {foreign} are not in the request; {missing} of the request's rows are "
            "missing or were changed",
            why="what is deleted and verified must be what was asked for",
            fix="bring the file back to what it was, or give the place of the right one",
        )


def _again(request_id: str) -> str:
    return f"give the place of the same rows again: RowsStore(ledger).put({request_id!r}, SOURCE)"


def _to_bytes(rows: datasets.Dataset) -> bytes:
    """The rows as an Arrow stream, with their features."""
    table = rows.with_format("arrow")[:].replace_schema_metadata(rows.features.arrow_schema.metadata)
    stream = io.BytesIO()
    with pa.ipc.new_stream(stream, table.schema) as writer:
        writer.write_table(table)
    return stream.getvalue()


def _from_bytes(content: bytes) -> datasets.Dataset:
    return datasets.Dataset(datasets.table.InMemoryTable(pa.ipc.open_stream(content).read_all()))


def _write_private(file: Path, content: bytes) -> None:
    """Write a whole file that only its owner can read."""
    file.parent.mkdir(mode=0o700, exist_ok=True)

    def write(place: Path) -> None:
        with open(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())

    atomic_write(file, write)
