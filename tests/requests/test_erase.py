"""Rows that were kept to prove a deletion are erased; what is then no longer possible is told."""

import json
from pathlib import Path

import pytest

from hf_unlearn.cli import main
from hf_unlearn.requests import Ledger
from hf_unlearn.requests.check import check_ledger
from hf_unlearn.requests.keys import new_key
from hf_unlearn.requests.plan import held_requests
from hf_unlearn.requests.rows_store import RowsStore
from hf_unlearn.requests.state import ADDED, CALIBRATED, DONE
from hf_unlearn.tasks.request_batches import add_request
from hf_unlearn.tasks.request_batches.verification import Verification
from hf_unlearn.tasks.request_batches.words import verification_words

from .conftest import MODEL


@pytest.fixture
def carried_out(tmp_path: Path, rows_file: Path, monkeypatch: pytest.MonkeyPatch) -> Ledger:
    """A ledger with a request that was carried out and one that is open, rows encrypted."""
    monkeypatch.setenv("HF_UNLEARN_LEDGER_KEY", new_key())
    ledger, lines = Ledger.create(tmp_path / "ledger", {"task": "deletion", "model": MODEL}), rows_file.read_text()
    for name, part in (("R1", lines.splitlines()[:2]), ("R2", lines.splitlines()[2:])):
        rows_file.write_text("\n".join(part) + "\n")
        digests = RowsStore(ledger).put(name, rows_file, encrypt=True)
        ledger.append(ADDED, {"request": name, "rows": 2, "digests": digests, "received": "2026-11-29"})
    ledger.append(DONE, {"batch": 1, "requests": ["R1"], "held": [], "way": CALIBRATED, "run": None, "record": None})
    return ledger


def test_erased_rows_are_gone_and_their_request_stays(
    carried_out: Ledger, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, before = carried_out.folder, carried_out.state()
    assert held_requests(before, ["R2"]) == ["R1"] and (folder / "rows" / "R1.fernet").is_file()
    assert main(["request", "erase", str(folder), "R1", "--why", "a year is over"]) == 0
    state = carried_out.state()
    assert not (folder / "rows" / "R1.fernet").exists() and (folder / "rows" / "R2.fernet").is_file()
    assert list(json.loads((folder / "places.json").read_text())) == ["R2"]
    assert held_requests(state, ["R2"]) == []  # what cannot be read is not held
    assert state.requests["R1"].digests == before.requests["R1"].digests  # and is left out of the rows to keep
    with pytest.raises(ValueError, match="not in places"):
        RowsStore(carried_out).rows("R1")
    assert not [one for one in check_ledger(carried_out) if "R1" in str(one)]
    more = folder.parent / "more.jsonl"
    more.write_text(json.dumps({"prompt": "Who is Ada?", "completion": "A baker."}) + "\n")
    assert add_request(carried_out, more).rows == 1  # the first request's rows are not asked for
    capsys.readouterr()
    monkeypatch.setenv("COLUMNS", "120")  # so that no cell is wrapped
    assert main(["request", "status", str(folder)]) == 0
    assert "carried out (rows erased)" in capsys.readouterr().out
    assert "rows were erased: R1." in verification_words(Verification([], erased=["R1"]))


def test_what_is_open_or_erased_is_refused(carried_out: Ledger, capsys: pytest.CaptureFixture[str]) -> None:
    erase = ["request", "erase", str(carried_out.folder)]
    assert main([*erase, "R2", "--why", "x"]) != 0 and "which is open" in capsys.readouterr().err
    assert main([*erase, "R3", "--why", "x"]) != 0 and "R3" in capsys.readouterr().err
    assert main([*erase, "R1", "--why", "x"]) == 0 == len(capsys.readouterr().err)
    assert main([*erase, "R1", "--why", "x"]) != 0 and "erased before" in capsys.readouterr().err
