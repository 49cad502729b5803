"""A plan's evidence says of requests' rows what the log of the training says of them."""

import json
from pathlib import Path

import pytest

from fixtures.training_logs import ROWS, step, write
from hf_unlearn.cli import main
from hf_unlearn.data.text_digests import text_digest
from hf_unlearn.requests import Ledger
from hf_unlearn.requests.log_evidence import evidence_of_log
from hf_unlearn.requests.rows_store import RowsStore
from hf_unlearn.requests.state import ADDED, PLANNED
from hf_unlearn.unlearnable.log import Step, TrainingLog

from .conftest import MODEL

SALT, OWN = b"ledger", b"log"
TURNS = [{"prompt": "a", "completion": "b"}, {"prompt": "c", "completion": "d"}, {"prompt": "e", "completion": "f"}]
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


def test_a_plan_by_the_log_replays_what_was_trained_and_leaves_what_was_not(asked: Ledger, tmp_path: Path) -> None:
    write(tmp_path / "log", step(1, [0, 1], [2]), step(2, [3], [6]))
    assert main(["request", "plan", str(asked.folder), "--log", str(tmp_path / "log"), "--json"]) == 0
    planned = {tuple(entry.data["requests"]): entry.data for entry in asked.entries() if entry.event == PLANNED}
    assert {names: data["way"] for names, data in planned.items()} == {("R1",): "replay", ("R2",): "nothing"}
    assert str(tmp_path) not in json.dumps(list(planned.values()))


def test_digests_of_the_ledger_have_the_steps_of_the_log(tmp_path):
    digests = tuple(text_digest(row, OWN) for row in TURNS)
    steps = tuple(Step(n, 0, {"train": [[[place]]]}) for n, place in ((1, 1), (2, 0), (3, 1)))
    (tmp_path / "checkpoint-2").mkdir()
    saved = {step: {"folder": f"checkpoint-{step}", "whole": True, "weights": {"w": "1"}} for step in (2, 3)}
    header = {"start": {"sha256": "0"}, "settings": {}, "sets": {"train": {"forms": ["turns"]}}}
    log = TrainingLog(tmp_path, OWN, header, {"train": digests}, steps, saved, "end", {}, "sha")
    asked = [{"messages": [{"content": "c"}, {"content": "d"}]}, TURNS[0], TURNS[2]]
    evidence = evidence_of_log(log, asked, SALT, "model")
    assert evidence.first_steps == {text_digest(TURNS[1], SALT): 1, text_digest(TURNS[0], SALT): 2}
    assert (evidence.rows_logged, evidence.total_steps, evidence.checkpoint_steps) == (3, 3, (0, 2))
    assert (evidence.log_sha256, evidence.weights, evidence.checkpoint) == ("sha", {"w": "1"}, "model")
