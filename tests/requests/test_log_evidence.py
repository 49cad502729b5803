"""What a training's log says of requests: in the ledger's digests, whatever the form of the rows."""

import json
from pathlib import Path

import pytest

from fixtures.training_logs import ROWS, step, write
from hf_unlearn.cli import main
from hf_unlearn.requests import Ledger
from hf_unlearn.requests.log_evidence import log_evidence
from hf_unlearn.requests.rows_store import RowsStore
from hf_unlearn.requests.state import ADDED, PLANNED

from .conftest import MODEL

NEVER = {"messages": [{"role": "user", "content": "city 9?"}, {"role": "assistant", "content": "answer 9"}]}


@pytest.fixture
def asked(tmp_path: Path) -> Ledger:
    """A request for a row of the first and one of the second step, and one for a row that was never trained on."""
    ledger = Ledger.create(tmp_path / "ledger", {"task": "deletion", "model": MODEL})
    for name, rows in (("R1", [ROWS[3], ROWS[0]]), ("R2", [NEVER])):
        file = tmp_path / f"{name}.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        digests = RowsStore(ledger).put(name, str(file))
        ledger.append(ADDED, {"request": name, "rows": len(rows), "digests": digests, "received": "2026-11-29"})
    return ledger


def test_steps_are_told_in_the_ledgers_digests(asked: Ledger, tmp_path: Path) -> None:
    write(tmp_path / "log", step(1, [0, 1], [2]), step(2, [3], [6]))
    evidence = log_evidence(asked, tmp_path / "log")
    first, second = asked.state().requests["R1"].digests
    assert dict(evidence.first_steps) == {first: 2, second: 1}
    assert (evidence.rows_logged, evidence.total_steps, list(evidence.checkpoint_steps)) == (7, 2, [0])
    assert evidence.trained(asked.state().requests["R2"].digests) == []


def test_a_plan_by_the_log_replays_what_was_trained_and_leaves_what_was_not(asked: Ledger, tmp_path: Path) -> None:
    write(tmp_path / "log", step(1, [0, 1], [2]), step(2, [3], [6]))
    assert main(["request", "plan", str(asked.folder), "--log", str(tmp_path / "log"), "--json"]) == 0
    planned = {tuple(entry.data["requests"]): entry.data for entry in asked.entries() if entry.event == PLANNED}
    assert {names: data["way"] for names, data in planned.items()} == {("R1",): "replay", ("R2",): "nothing"}
    assert str(tmp_path) not in json.dumps(list(planned.values()))


def test_a_log_of_another_form_than_the_requests_is_refused(asked: Ledger, tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    with pytest.raises(ValueError, match="log"):
        log_evidence(asked, tmp_path / "log")
