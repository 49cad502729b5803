"""The chain of a ledger: what is added stays, what is changed is noticed, what was cut off is no entry."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hf_unlearn.requests import Ledger
from hf_unlearn.requests.chain import read_chain
from hf_unlearn.requests.index import INDEX_FILE
from hf_unlearn.requests.ledger import LEDGER_FILE, SALT_FILE
from hf_unlearn.requests.state import CALIBRATED, DONE, REOPENED, STARTED, VERIFIED


def _json_hash(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def test_entries_are_chained_as_the_page_says(ledger: Ledger) -> None:
    previous = "0" * 64
    for number, line in enumerate((ledger.folder / LEDGER_FILE).read_text().splitlines(), 1):
        entry = json.loads(line)
        body = {name: value for name, value in entry.items() if name != "hash"}
        if "digests" in body["data"]:
            body["data"]["digests"] = _json_hash(body["data"]["digests"])
        assert entry["hash"] == _json_hash(body)
        assert (entry["previous"], entry["number"]) == (previous, number)
        previous = entry["hash"]
    assert (ledger.folder / SALT_FILE).stat().st_mode & 0o777 == 0o600


def _edited(lines: list[str]) -> list[str]:
    return [lines[0], lines[1].replace('"rows": 2', '"rows": 1'), lines[2]]


TAMPERED: dict[str, Callable[[list[str]], list[str]]] = {
    "changed": _edited,
    "removed": lambda lines: [lines[0], lines[2]],
    "exchanged": lambda lines: [lines[0], lines[2], lines[1]],
    "foreign": lambda lines: [lines[0], "hello", lines[2]],
    "digests": lambda lines: [*lines[:2], lines[2].replace("R2a", "R2c")],
    "hidden": lambda lines: [*lines[:2], lines[2].replace('["R2a", "R2b"]', f'"{_json_hash(["R2a", "R2b"])}"')],
    "doubled": lambda lines: [*lines, lines[2]],
}


@pytest.mark.parametrize("how", TAMPERED)
def test_a_line_that_was_tampered_with_is_named(ledger: Ledger, how: str) -> None:
    file = ledger.folder / LEDGER_FILE
    file.write_text("".join(f"{line}\n" for line in TAMPERED[how](file.read_text().splitlines())))
    problems = read_chain(file)[1]
    assert problems and all("line " in problem for problem in problems)
    with pytest.raises(ValueError, match="follow one another"):
        ledger.append(REOPENED, {"request": "R1", "why": "x"})


def test_a_line_that_was_cut_off_is_no_entry(ledger: Ledger) -> None:
    file = ledger.folder / LEDGER_FILE
    whole = file.read_bytes()
    (ledger.folder / INDEX_FILE).unlink()  # a process that is killed there has not remembered the entry
    for end in range(len(whole) - 40, len(whole)):  # at any byte of the last line
        file.write_bytes(whole[:end])
        assert len(ledger.entries()) == 2
    ledger.append(REOPENED, {"request": "R1", "why": "x"})
    assert [entry.number for entry in ledger.entries()] == [1, 2, 3]


def test_state_follows_the_entries(ledger: Ledger) -> None:
    started: dict[str, Any] = {"batch": 1, "requests": ["R1"], "held": [], "way": CALIBRATED}
    ledger.append(STARTED, started)
    assert ledger.state().unfinished == started
    ledger.append(DONE, {**started, "run": "1", "weights": {"model.safetensors": "b" * 64}})
    state = ledger.state()
    assert (state.unfinished, state.batches, state.run) == (None, [1], "1")
    assert [request.id for request in state.with_status("open")] == ["R2"]
    ledger.append(VERIFIED, {"request": "R1", "holds": True})
    assert ledger.state().requests["R1"].status == "holds"
    ledger.append(REOPENED, {"request": "R1", "why": "came back"})
    again = ledger.state().requests["R1"]
    assert (again.status, again.reopened, len(again.history)) == ("open", 1, 5)


def test_a_second_ledger_in_the_folder_and_none_are_refused(ledger: Ledger, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="without a ledger"):
        Ledger.create(ledger.folder, {})
    with pytest.raises(ValueError, match="request open"):
        Ledger(tmp_path)


def test_another_process_is_waited_for_and_then_refused(ledger: Ledger) -> None:
    with Ledger(ledger.folder).locked(), pytest.raises(ValueError, match="no other process"), ledger.locked(wait=0.1):
        pass
