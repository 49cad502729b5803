"""A ledger of two requests over a model whose file has a made-up hash, and one in which both were carried out."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from hf_unlearn.model.weight_files import weight_file_hashes
from hf_unlearn.requests import Ledger
from hf_unlearn.requests.state import ADDED, CALIBRATED, DONE, PLANNED, REOPENED, STARTED, VERIFIED

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


def save_weights(folder: Path, value: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    save_file({"weight": np.full(3, value, dtype=np.float32)}, folder / "model.safetensors")


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.fixture
def done(two_batches: Path, tmp_path: Path) -> Ledger:
    """Two requests, a batch each; the first came back after the second batch and is open again."""
    return Ledger(shutil.copytree(two_batches, tmp_path / "done"))


@pytest.fixture(scope="session")
def two_batches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `done` is a copy of."""
    folder = tmp_path_factory.mktemp("ledger")
    for name, text in (("command.json", "[]"), ("places.json", '{"R1": {}, "R2": {}}')):
        (folder / name).write_text(text)
        (folder / name).chmod(0o600)
    opened = {"task": "deletion", "policy": "standard", "model": MODEL, "settings": sha256(folder / "command.json")}
    ledger = Ledger.create(folder, opened)
    for batch, name in enumerate(("R1", "R2"), 1):
        added = {"request": name, "rows": 2, "digests": [f"{name}a", f"{name}b"], "received": "2026-11-29"}
        more = {"due": "2026-12-29", "scope": "all that is about <two> people", "reference": f"letter {batch}"}
        ledger.append(ADDED, {**added, **more, "policy": "standard"})
        one: dict[str, Any] = {"requests": [name], "way": CALIBRATED}
        ledger.append(PLANNED, {**one, "why": {name: ["There is no log."]}, "evidence": {"cost": None}})
        one |= {"batch": batch, "held": ["R1"][: batch - 1]}
        ledger.append(STARTED, one)
        run = ledger.runs / str(batch)
        save_weights(run, batch)
        (run / "results.json").write_text(json.dumps({"batch": batch}))
        (run / "README.md").write_text(f"# Card of batch {batch}\n")
        weights = weight_file_hashes(run)
        record = {
            "run": str(batch),
            "record": sha256(run / "results.json"),
            "weights": weights,
            "cost": {"seconds": 3.2, "steps": 7},
        }
        ledger.append(DONE, {**one, **record})
    for name, holds in (("R1", False), ("R2", True)):
        file = folder / "verifications" / f"{name}.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps({"request": name, "holds": holds}))
        share = {"value": 0.5, "low": 0.1, "high": 0.9, "n": 2}
        excess = {"value": 0.2, "low": None, "high": None, "n": 2, "label": "excess of an attack", "limit": "0.1"}
        figures = {"forget_accuracy": share, "attack_x": excess, "own": 3.25, "other": "nan"}
        why = (
            "The level of its rows is below that of rows never seen."
            if not holds
            else "All figures are within limits."
        )
        said = {"why": why if holds else [why], "notes": ["few rows cannot show little"]}
        data = {"request": name, "holds": holds, "figures": figures, **said, "weights": weights}
        ledger.append(VERIFIED, {**data, "record": sha256(file)})
    ledger.append(REOPENED, {"request": "R1", "why": "The level of its rows is below that of rows never seen."})
    return folder
