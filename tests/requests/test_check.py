"""What is not as the ledger left it is named, each thing by itself, and nothing else is."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from hf_unlearn.requests import Ledger
from hf_unlearn.requests.check import check_ledger
from hf_unlearn.requests.ledger import LEDGER_FILE

from .conftest import save_weights


def _rewrite(ledger: Ledger) -> None:
    """A whole chain with other content: consistent by itself."""
    opened, *rest = ledger.entries()
    (ledger.folder / LEDGER_FILE).unlink()
    Ledger.create(ledger.folder, opened.data)
    (ledger.folder / "index.sqlite").unlink()
    for entry in rest[:5]:
        data = {**entry.data, "received": "2026-11-28"} if entry.event == "added" else entry.data
        ledger.append(entry.event, data)


def _line(ledger: Ledger) -> None:
    file = ledger.folder / LEDGER_FILE
    file.write_text(file.read_text().replace("letter 1", "letter 3", 1))


def _cut(ledger: Ledger) -> None:
    file = ledger.folder / LEDGER_FILE
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:-1]))


def _in(name: str, act: Callable[[Path], object]) -> Callable[[Ledger], object]:
    return lambda ledger: act(ledger.folder / name)


CHANGES: dict[str, tuple[Callable[[Ledger], object], str]] = {
    "line": (_line, "Line 2 of ledger.jsonl was changed"),
    "end": (_cut, "there was an entry"),
    "rewritten": (_rewrite, "others than in the bundle bundle: they were written anew"),
    "salt": (_in("salt", Path.unlink), "salt is missing"),
    "settings": (
        _in("command.json", lambda file: file.write_text("{}")),
        "command.json, with the settings",
    ),
    "no settings": (_in("command.json", Path.unlink), "command.json, with the settings of runs, is missing"),
    "open to others": (_in("salt", lambda file: file.chmod(0o644)), "salt can be read by others"),
    "places": (_in("places.json", lambda file: file.write_text("?")), "places.json was changed"),
    "no place": (
        _in("places.json", lambda file: file.write_text('{"R2": {}}')),
        "no place of the rows of request R1",
    ),
    "record": (_in("runs/2/results.json", lambda file: file.write_text("{}")), "results.json, is another file"),
    "no record": (_in("runs/1/results.json", Path.unlink), "runs/1/results.json, is missing"),
    "run": (_in("runs/1", shutil.rmtree), "batch 1, runs/1, is missing"),
    "weights": (_in("runs/2", lambda run: save_weights(run, 9)), "others than were written: model.safetensors"),
    "no weights": (_in("runs/2/model.safetensors", Path.unlink), "these are missing: model.safetensors"),
    "former weights": (_in("runs/1", lambda run: save_weights(run, 9)), "batch 1, runs/1, these are others"),
    "more weights": (
        _in("runs/2", lambda run: shutil.copy(run / "model.safetensors", run / "more.safetensors")),
        "others than were written: more.safetensors",
    ),
    "verification": (_in("verifications/R1.json", Path.unlink), "verification of request R1 (entry 10) is missing"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_each_change_is_named(done: Ledger, name: str, tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    shutil.copy(done.folder / LEDGER_FILE, tmp_path / "bundle")
    assert check_ledger(done, exports=[tmp_path / "bundle"]) == []
    change, words = CHANGES[name]
    change(done)
    problems = [str(problem) for problem in check_ledger(done, exports=[tmp_path / "bundle"])]
    assert any(words in problem for problem in problems), problems
    assert all("What to do: " in problem and str(tmp_path) not in problem for problem in problems)
    if name not in ("line", "end", "rewritten", "no record", "run", "verification"):
        assert len(problems) == 1, problems


def test_weights_that_were_replaced_may_go_and_another_model_is_noticed(done: Ledger, tmp_path: Path) -> None:
    (done.folder / "runs/1/model.safetensors").unlink()  # they knew what was deleted later
    assert check_ledger(done, done.folder / "runs/2") == []
    save_weights(tmp_path / "other", 5)
    (problem,) = check_ledger(done, tmp_path / "other")
    assert "in other these are others than the ledger names: model.safetensors" in problem.text
