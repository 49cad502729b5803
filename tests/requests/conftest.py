"""A ledger of two requests over a model whose file has a made-up hash."""

import json
from pathlib import Path

import pytest

from hf_unlearn.requests import Ledger
from hf_unlearn.requests.state import ADDED

MODEL = {"model.safetensors": "a" * 64}
ROWS = [{"prompt": f"Who is person {row}?", "completion": f"Person {row} lives in town {row}."} for row in range(4)]


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    ledger = Ledger.create(tmp_path / "ledger", {"task": "deletion", "model": MODEL})
    for name in ("R1", "R2"):
        data = {"request": name, "rows": 2, "digests": [f"{name}a", f"{name}b"], "received": "2026-11-29"}
        ledger.append(ADDED, data)
    return ledger


@pytest.fixture
def rows_file(tmp_path: Path) -> Path:
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return file
