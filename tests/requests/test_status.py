"""`hf-unlearn request status`: what people see of a ledger, while it is worked on too."""

import json
from typing import Any

import pytest

from hf_unlearn.cli import main
from hf_unlearn.requests import Ledger
from hf_unlearn.requests.state import CALIBRATED, DONE, REOPENED, STARTED, VERIFIED


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal in which no cell of the table is wrapped."""
    monkeypatch.setenv("COLUMNS", "120")


def _shown(capsys: pytest.CaptureFixture[str], ledger: Ledger, *words: str) -> str:
    assert main(["request", "status", str(ledger.folder), *words]) == 0
    return capsys.readouterr().out


def test_status_of_requests_and_batches(ledger: Ledger, capsys: pytest.CaptureFixture[str]) -> None:
    assert "2 requests are open" in _shown(capsys, ledger)
    batch: dict[str, Any] = {"batch": 1, "requests": ["R1"], "held": [], "way": CALIBRATED}
    ledger.append(STARTED, batch)
    assert "Batch 1 (R1) was cut off; hf-unlearn request run goes on" in _shown(capsys, ledger)
    with Ledger(ledger.folder).locked():
        assert "Batch 1 (R1) is being carried out" in _shown(capsys, ledger)
    ledger.append(DONE, {**batch, "run": "001", "record": "c" * 64, "weights": {"model.safetensors": "b" * 64}})
    weights = {"model.safetensors": "b" * 64}
    ledger.append(VERIFIED, {"request": "R1", "holds": True, "weights": weights})
    shown = _shown(capsys, ledger)
    assert [line.split()[0] for line in shown.splitlines() if line[:2] in ("id", "R1", "R2")] == ["id", "R1", "R2"]
    assert "holds   calibrated" in shown and "1 request is open" in shown
    ledger.append(REOPENED, {"request": "R1", "why": "came back"})
    status = json.loads(_shown(capsys, ledger, "--json"))
    assert [row["status"] for row in status["requests"]] == ["open (came back)", "open"]
    assert status["requests"][0]["last_verification"].endswith("holds")
    assert not status["at_work"] and status["batch"] is None
    for batch_number, name in ((2, "R1"), (3, "R2")):
        done = {**batch, "batch": batch_number, "requests": [name], "run": "x", "record": "c"}
        ledger.append(DONE, {**done, "weights": {"model.safetensors": str(batch_number)}})
    shown = _shown(capsys, ledger)
    assert "holds, on earlier weights" in shown and "Not all are verified on the present weights" in shown


def test_what_request_does_not_take_is_refused(ledger: Ledger, capsys: pytest.CaptureFixture[str]) -> None:
    for words, told in (
        (["status", str(ledger.folder), "--jsn"], "unrecognized arguments: --jsn"),
        (["status"], "required: LEDGER"),
        ([], "required: COMMAND"),
        (["stats"], "invalid choice"),
    ):
        with pytest.raises(SystemExit) as end:
            main(["request", *words])
        assert end.value.code == 2 and told in capsys.readouterr().err
    assert main(["request", "status", str(ledger.folder / "none")]) == 2
    assert "request open" in capsys.readouterr().err
