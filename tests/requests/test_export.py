"""The bundle of a ledger: checked with nothing installed, without rows, digests and places, and whole or not there."""

import html
import json
import re
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest

from hf_unlearn.cli import main
from hf_unlearn.requests import Ledger
from hf_unlearn.requests.chain import read_chain
from hf_unlearn.requests.check import check_ledger
from hf_unlearn.requests.export import export
from hf_unlearn.requests.state import ABANDONED, ADDED, DONE, NOTHING

from .conftest import sha256

TODAY = date(2026, 12, 10)


def _text(page: Path) -> str:
    """What a reader sees of a page."""
    body = page.read_text().split("<body>")[1]
    return " ".join(html.unescape(re.sub("<[^>]*>", " ", body)).split())


def _verify(folder: Path) -> subprocess.CompletedProcess[str]:
    # Isolated and without site packages: plain Python.
    return subprocess.run([sys.executable, "-IS", folder / "verify.py"], capture_output=True, text=True)


def test_a_bundle_is_checked_with_nothing_installed(done: Ledger, tmp_path: Path) -> None:
    head = done.entries()[-1]
    folder = export(done, tmp_path / "out/bundle", today=TODAY)
    assert sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()) == [
        "README.txt",
        "SHA256SUMS",
        *(f"batches/{batch}/{name}" for batch in (1, 2) for name in ("README.md", "results.json")),
        "index.html",
        "ledger.jsonl",
        "verifications/R1-10.json",
        "verifications/R2-11.json",
        "verify.py",
    ]
    for line in (folder / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split("  ")
        assert sha256(folder / name) == digest
    checked = _verify(folder)
    assert checked.returncode == 0 and f"{head.number} entries" in checked.stdout and head.hash in checked.stdout
    assert head.hash in (folder / "README.txt").read_text()
    lines = (folder / "ledger.jsonl").read_text().splitlines(keepends=True)
    for tampered in (
        lines[1:],
        lines[:3] + lines[4:],
        [*lines[:1], lines[1].replace("letter 1", "letter 2"), *lines[2:]],
    ):
        (folder / "ledger.jsonl").write_text("".join(tampered))
        refused = _verify(folder)
        assert refused.returncode == 1 and "was changed, or one before it is missing" in refused.stderr
    exported = done.entries()[-1]
    assert (exported.event, exported.data) == ("exported", {"entries": head.number, "head": head.hash})

    export(done, folder, today=TODAY)  # an earlier export is replaced
    assert len(read_chain(folder / "ledger.jsonl", exported=True)[0]) == head.number + 1
    assert check_ledger(done, exports=[folder]) == []
    assert [file.name for file in folder.parent.iterdir()] == ["bundle"]


def test_nothing_of_rows_and_places_is_in_a_bundle(done: Ledger, tmp_path: Path) -> None:
    folder = export(done, tmp_path / "bundle", today=TODAY)
    content = b"".join(file.read_bytes() for file in folder.rglob("*") if file.is_file())
    for secret in (b"R1a", b"R2b", done.salt, str(tmp_path).encode(), b"places.json", b"command.json"):
        assert secret not in content
    with_digests = export(done, tmp_path / "more", digests=True, today=TODAY)
    assert b'"R1a"' in (with_digests / "ledger.jsonl").read_bytes() and _verify(with_digests).returncode == 0

    (done.runs / "1/README.md").write_text(f"made in {done.folder}/runs\n")
    with pytest.raises(ValueError, match="which names a folder of it"):
        export(done, tmp_path / "none")
    assert {file.name for file in tmp_path.iterdir()} == {"done", "bundle", "more"}
    for taken in (done.folder, done.folder / "bundle", tmp_path):
        with pytest.raises(ValueError, match="name another folder"):
            export(done, taken)


def test_the_page_says_what_was_asked_done_and_checked(done: Ledger, tmp_path: Path) -> None:
    late = {"request": "R3", "rows": 1, "digests": ["R3a"], "received": "2026-11-01", "due": "2026-12-01"}
    done.append(ADDED, {**late, "scope": "see ~/letters/first.txt <script>"})
    done.append(ADDED, {**late, "request": "R4", "due": None})
    done.append(ABANDONED, {"batch": 3, "requests": ["R3"], "why": "not now"})
    nothing = {"requests": ["R4"], "way": NOTHING, "evidence": {"said": "they came in after the training"}}
    done.append(DONE, {"batch": 4, **nothing, "run": None, "record": None, "weights": {}, "cost": {}})
    (done.runs / "1/results.json").write_text("{}")
    page = _text(export(done, tmp_path / "bundle", today=TODAY) / "index.html")
    for words in (
        "4 requests, 2 open, 1 late",
        "R1 2 2026-11-29 2026-12-29 19 days left open (came back) calibrated",
        "2026-12-01 9 days late open",
        "What is to be deleted: all that is about <two> people",
        "see (a local path) <script>",
        "There is no log.",
        "They came in after the training.",
        "Earlier requests whose rows were held at their level: R1.",
        "does not hold 2026",
        "on the model after batch 2 (entry 10). The level of its rows is below that of rows never seen.",
        "50.0% [10.0%, 90.0%], n = 2",
        "excess of an attack 0.200, n = 2 0.1 own 3.250 - other nan -",
        "What this leaves open: Few rows cannot show little.",
        "Cost: 7 steps, 3 seconds.",
        "Batch 3 for R3 was given up: Not now.",
        "the request was opened again. The level of its rows",
        "Suppression is not certified deletion.",
        "exact only as far as the log of the training is complete",
        "Batch 1 : card ; missing: record .",
        "no run, since nothing was to be changed",
        "the model after batch 2 model.safetensors",
        f"Last entry {len(done.entries()) - 1}, {done.entries()[-2].hash}",
    ):
        assert words in page, words
    source = (tmp_path / "bundle/index.html").read_text()
    assert "<script" not in source and not re.search(r"(src|href)=\"(?!#|batches/)", source)
    assert "Missing or changed since: batch 1: record." in (tmp_path / "bundle/README.txt").read_text()


def test_an_empty_ledger_and_the_command(tmp_path: Path, ledger: Ledger, capsys: pytest.CaptureFixture[str]) -> None:
    empty = Ledger.create(tmp_path / "empty", {"task": "deletion", "model": {}})
    assert "0 requests, 0 open None has come in yet." in _text(export(empty, tmp_path / "none") / "index.html")
    assert main(["request", "export", str(ledger.folder), str(tmp_path / "bundle"), "--json"]) == 0
    assert Path(json.loads(capsys.readouterr().out)["page"]).is_file()
    assert main(["request", "export", str(ledger.folder), str(tmp_path)]) == 2
    assert "What to do: name another folder." in capsys.readouterr().err
