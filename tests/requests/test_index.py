"""The index of a ledger: made anew at any time, but for its memory of the end."""

import sqlite3
from pathlib import Path

import pytest

from hf_unlearn.requests import Ledger
from hf_unlearn.requests.index import INDEX_FILE, Index
from hf_unlearn.requests.ledger import LEDGER_FILE
from hf_unlearn.requests.state import ADDED, REOPENED


def test_rows_are_known_by_the_requests_they_are_in(ledger: Ledger) -> None:
    many = [f"d{row}" for row in range(1200)]  # more than a query of SQLite takes
    ledger.append(ADDED, {"request": "A3", "rows": 1201, "digests": [*many, "R1b"], "received": "2026-11-30"})
    expected = {"R1a": ["R1"], "R1b": ["R1", "A3"], "d0": ["A3"], "d1199": ["A3"]}
    wanted = ["R1a", "R1b", "no", "d0", "d1199"]
    assert ledger.requests_with(wanted) == expected
    assert len(ledger.requests_with(many)) == 1200
    file = ledger.folder / INDEX_FILE
    assert file.stat().st_mode & 0o777 == 0o600
    with sqlite3.connect(file) as database:  # an index that ends elsewhere is made anew
        database.execute("DELETE FROM digests")
        database.execute("UPDATE entries SET hash = 'x'")
    database.close()
    assert ledger.requests_with(wanted) == expected
    for broken in (b"", b"no database" * 500, None):
        file.unlink() if broken is None else file.write_bytes(broken)
        assert ledger.requests_with(wanted) == expected


def test_an_index_that_is_damaged_or_locked_is_told(ledger: Ledger) -> None:
    file = ledger.folder / INDEX_FILE
    with sqlite3.connect(file) as database:
        database.execute("DROP TABLE digests")
        database.execute("CREATE TABLE digests (other TEXT)")
    database.close()
    with pytest.raises(OSError, match="remove it: it is made anew"):
        ledger.requests_with(["R1a"])
    file.unlink()
    assert ledger.requests_with(["R1a"]) == {"R1a": ["R1"]}


def _without_last(file: Path) -> None:
    file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[:-1]))


def test_an_end_that_was_cut_off_or_written_again_is_noticed(ledger: Ledger) -> None:
    file = ledger.folder / LEDGER_FILE
    whole = file.read_bytes()
    _without_last(file)
    for act in (lambda: ledger.append(REOPENED, {"request": "R1", "why": "x"}), lambda: ledger.requests_with(["R1a"])):
        with pytest.raises(ValueError, match="ends with entry 2, where there was an entry 3"):
            act()
    (ledger.folder / INDEX_FILE).rename(ledger.folder / "kept")
    ledger.append(REOPENED, {"request": "R1", "why": "x"})  # without the memory another end goes on the same
    (ledger.folder / "kept").rename(ledger.folder / INDEX_FILE)
    with pytest.raises(ValueError, match="entry 3 is another than before"):
        ledger.append(REOPENED, {"request": "R1", "why": "x"})
    file.write_bytes(whole)
    assert ledger.append(REOPENED, {"request": "R1", "why": "x"}).number == 4
    assert Index(ledger.folder).seen() == (4, ledger.entries()[-1].hash)
