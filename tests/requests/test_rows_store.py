"""Rows of requests: their place or their encrypted text, and never another row than was asked for."""

import builtins
import json
from pathlib import Path
from typing import Any

import datasets
import pytest

from hf_unlearn.requests import Ledger, RowsStore
from hf_unlearn.requests.rows_store import PLACES_FILE
from hf_unlearn.requests.state import ADDED

from .conftest import ROWS


def _add(ledger: Ledger, name: str, digests: list[str]) -> None:
    ledger.append(ADDED, {"request": name, "rows": len(digests), "digests": digests, "received": "2026-11-29"})


def _bytes_under(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in folder.rglob("*") if file.is_file())


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> str:
    key = RowsStore.new_key()
    monkeypatch.setenv("HF_UNLEARN_LEDGER_KEY", key)
    return key


def test_a_place_is_kept_and_other_rows_are_refused(ledger: Ledger, rows_file: Path, tmp_path: Path) -> None:
    store = RowsStore(ledger)
    digests = store.put("R3", rows_file)
    assert len(set(digests)) == 4
    _add(ledger, "R3", digests)
    assert store.rows("R3").to_list() == ROWS
    places = ledger.folder / PLACES_FILE
    assert places.stat().st_mode & 0o777 == 0o600
    assert b"Person 1" not in _bytes_under(ledger.folder)

    lines = rows_file.read_text().splitlines(keepends=True)
    rows_file.write_text("".join(reversed(lines)))  # the order of the request counts, not the file's
    assert store.rows("R3").to_list() == ROWS
    for changed, words in (
        (lines[:3], "3, of which 0 are not in the request; 1 of the request's"),
        ([*lines[:3], lines[3].replace("n 3", "n 5")], "4, of which 1 are not in the request; 1 of the request's"),
        ([*lines, lines[0].replace("0", "7")], "5, of which 1 are not in the request; 0 of the request's"),
    ):
        rows_file.write_text("".join(changed))
        with pytest.raises(ValueError, match=words) as error:
            store.rows("R3")
        assert "town" not in str(error.value)
        with pytest.raises(ValueError, match=words):
            store.put("R3", rows_file)

    moved = tmp_path / "moved.json"
    moved.write_text(json.dumps([{"q": row["prompt"], "a": row["completion"]} for row in ROWS]))
    rows_file.unlink()
    with pytest.raises(ValueError, match="there is no file"):
        store.rows("R3")
    assert store.put("R3", moved, columns={"q": "prompt", "a": "completion"}) == digests
    assert store.rows("R3").to_list() == ROWS


def test_sets_that_are_no_request_are_refused(ledger: Ledger, rows_file: Path) -> None:
    store = RowsStore(ledger)
    chat = [{"role": "user", "content": ROWS[1]["prompt"]}, {"role": "assistant", "content": ROWS[1]["completion"]}]
    same = [ROWS[0], ROWS[1], {**ROWS[1], "prompt": ROWS[1]["prompt"] + "  "}]
    rows_file.write_text("".join(json.dumps(row) + "\n" for row in same))
    for split, words in (("train[:0]", "without rows"), ("train", "1 of 3 .* row 3")):
        with pytest.raises(ValueError, match=words):
            store.put("R3", rows_file, split=split)
    for name in ("../R3", "", "a/b", "R" * 65, ".hidden"):
        with pytest.raises(ValueError, match="names files"):
            store.put(name, rows_file)
    with pytest.raises(ValueError, match="not in places"):
        store.rows("R1")
    with pytest.raises(ValueError, match="which it does not have"):
        store.rows("R9")
    rows_file.write_text(json.dumps({"messages": chat}) + "\n")
    _add(ledger, "R3", store.put("R3", rows_file))
    rows_file.write_text(json.dumps(ROWS[1]) + "\n")  # the same row in another format
    assert store.rows("R3").to_list() == [ROWS[1]]


def test_rows_are_encrypted_and_come_back_as_they_were(
    ledger: Ledger, rows_file: Path, key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = RowsStore(ledger)
    odd = [{"messages": [{"role": "user", "content": "日本 🙂"}, {"role": "assistant", "content": "é"}], "n": 3}]
    datasets.Dataset.from_list(odd).save_to_disk(tmp_path / "odd")
    for name, source, rows in (("R3", rows_file, ROWS), ("R4", tmp_path / "odd", odd)):
        _add(ledger, name, store.put(name, source, encrypt=True))
        assert store.rows(name).to_list() == rows
        assert (ledger.folder / f"rows/{name}.fernet").stat().st_mode & 0o777 == 0o600
    rows_file.unlink()
    assert store.rows("R3").to_list() == ROWS
    written = _bytes_under(ledger.folder)
    assert b"Person 1" not in written and key.encode() not in written and str(rows_file).encode() not in written

    file = tmp_path / "key"
    file.write_text(key + "\n")
    monkeypatch.setenv("HF_UNLEARN_LEDGER_KEY_FILE", str(file))
    with pytest.raises(ValueError, match="both are set"):
        store.rows("R3")
    monkeypatch.delenv("HF_UNLEARN_LEDGER_KEY")
    assert store.rows("R3").to_list() == ROWS


def test_keys_and_files_that_do_not_open_the_rows(
    ledger: Ledger, rows_file: Path, key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = RowsStore(ledger)
    _add(ledger, "R3", store.put("R3", rows_file, encrypt=True))
    monkeypatch.setenv("HF_UNLEARN_LEDGER_KEY", RowsStore.new_key())
    with pytest.raises(ValueError, match="another key"):
        store.rows("R3")
    monkeypatch.setenv("HF_UNLEARN_LEDGER_KEY", "secret")
    with pytest.raises(ValueError, match="6 characters") as error:
        store.rows("R3")
    assert "secret" not in str(error.value)
    monkeypatch.delenv("HF_UNLEARN_LEDGER_KEY")
    inside = ledger.folder / "key"
    inside.write_text(key)
    for named, words in (("", "neither"), (tmp_path / "no", "FileNotFoundError"), (inside, "own folder")):
        monkeypatch.setenv("HF_UNLEARN_LEDGER_KEY_FILE", str(named))
        with pytest.raises(ValueError, match=words):
            store.put("R4", rows_file, encrypt=True)
    monkeypatch.delenv("HF_UNLEARN_LEDGER_KEY_FILE")
    monkeypatch.setenv("HF_UNLEARN_LEDGER_KEY", key)
    encrypted = ledger.folder / "rows/R3.fernet"
    whole = encrypted.read_bytes()
    for content, words in ((whole[:-9], "other bytes"), (b"", "empty")):
        encrypted.write_bytes(content)
        with pytest.raises(ValueError, match=words):
            store.rows("R3")


def test_without_the_library_only_encryption_is_refused(
    ledger: Ledger, rows_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = builtins.__import__

    def missing(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("cryptography"):
            raise ImportError(name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    monkeypatch.setenv("HF_UNLEARN_LEDGER_KEY", "x")
    store = RowsStore(ledger)
    assert len(store.put("R3", rows_file)) == 4
    with pytest.raises(ValueError, match=r"hf-unlearn\[requests\]"):
        store.put("R4", rows_file, encrypt=True)
