"""An auditor's bundle of a ledger: entries, records, cards, verifications, how to check them, and a page."""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, date, datetime
from pathlib import Path

from ..errors import input_error
from .chain import Entry, without_digests
from .index import Index
from .ledger import LEDGER_FILE, Ledger
from .page import BatchFiles, render_page
from .run_files import RECORD, file_sha256, files_by_hash, run_folder
from .state import DONE, EXPORTED, VERIFIED

PAGE, SUMS, README, VERIFY = "index.html", "SHA256SUMS", "README.txt", "verify.py"
_CARD, _REPORT = "README.md", "report.html"
_LINKS = {_CARD: "card", _REPORT: "report", RECORD: "record"}

_VERIFY = '''"""Checks that no line of ledger.jsonl was changed or left out. Nothing needs to be installed."""
import hashlib, json, pathlib

def digest(value):
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()

previous, number = "0" * 64, 0
for number, line in enumerate(pathlib.Path(__file__).with_name("ledger.jsonl").read_bytes().splitlines(), 1):
    entry = json.loads(line)
    if isinstance(entry["data"].get("digests"), list):
        entry["data"]["digests"] = digest(entry["data"]["digests"])
    if entry.pop("hash") != (now := digest(entry)) or entry["previous"] != previous or entry["number"] != number:
        raise SystemExit(f"Line {number} of ledger.jsonl was changed, or one before it is missing.")
    previous = now
print(f"{number} entries follow one another; the last one has the hash {previous}.")
'''

_README = """Deletion requests: what was asked, what was done, how it was checked
======================================================================

Open index.html in a browser. It loads nothing and runs no script.

To check that these files are those that were exported, in this folder:

    sha256sum --check SHA256SUMS        (macOS: shasum -a 256 --check SHA256SUMS)

To check that no entry of the ledger was changed or left out:

    python3 verify.py

It must print the number of entries and the hash of the last one:

    {number} entries, {hash}

Whoever has kept that hash, or an earlier bundle, can tell whether the ledger was written anew since.

To check that weights are those that the ledger speaks of, compare

    sha256sum *.safetensors

in the folder of the model with the hashes in index.html, or in ledger.jsonl under "weights".

What is in this folder:
    ledger.jsonl          every entry, one a line{digests}
    batches/N/            of each batch: its record (results.json), its card (README.md), its report
    verifications/        the file of each verification, by request and number of the entry
No row of the data, no salt and no place on a machine is among them.
{missing}"""


def export(ledger: Ledger, folder: str | os.PathLike[str], digests: bool = False, today: date | None = None) -> Path:
    """Write a bundle that an auditor can check without this package, and note in the ledger that it was exported.

    Args:
        ledger: which one.
        folder: a new or an empty one, or that of an earlier export, which is replaced.
        digests: give the salted digests of rows too; by default there is the hash of each request's list of them.
        today: the day of the page; None for the present day in UTC.

    Returns:
        the folder.

    Raises:
        ValueError: an entry was changed or is missing, the folder has other files, or a file names a place.
    """
    target = Path(folder)
    _require_free(target, ledger)
    index = Index(ledger.folder)
    with ledger.locked():
        seen, entries = index.seen(), ledger.entries()
        index.require_whole(entries, seen)
        unfinished = target.absolute().with_name(f".{target.absolute().name}.{os.getpid()}")
        unfinished.parent.mkdir(parents=True, exist_ok=True)
        try:
            unfinished.mkdir()
            _write(unfinished, ledger, entries, digests, today or datetime.now(UTC).date())
            _exchange(unfinished, target)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)  # still there where something failed
        ledger.append(EXPORTED, {"entries": len(entries), "head": entries[-1].hash})
    return target


def _write(folder: Path, ledger: Ledger, entries: Sequence[Entry], digests: bool, today: date) -> None:
    lines = [asdict(entry) for entry in entries]
    if not digests:
        lines = [{**line, "data": without_digests(line["data"])} for line in lines]
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    (folder / LEDGER_FILE).write_text(text, encoding="utf-8")
    (folder / VERIFY).write_text(_VERIFY, encoding="utf-8")
    batches = [_batch(folder, ledger, entry) for entry in entries if entry.event == DONE]
    lost = [f"batch {batch.batch}: {', '.join(batch.missing)}" for batch in batches if batch.missing]
    lost += _verifications(folder, ledger, entries)
    (folder / PAGE).write_text(render_page(entries, batches, today), encoding="utf-8")
    words = {
        "digests": "" if digests else "; of the rows' digests the hash of their list",
        "missing": "".join(f"\nMissing or changed since: {what}.\n" for what in lost),
    }
    readme = _README.format(number=len(entries), hash=entries[-1].hash, **words)
    (folder / README).write_text(readme, encoding="utf-8")
    _require_no_place(folder, ledger)
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    sums = "".join(f"{file_sha256(file)}  {file.relative_to(folder).as_posix()}\n" for file in files)
    (folder / SUMS).write_text(sums, encoding="utf-8")


def _batch(folder: Path, ledger: Ledger, entry: Entry) -> BatchFiles:
    """Copy what a bundle has of a batch; a record that is not the one of the entry is missing."""
    batch, run = entry.data["batch"], run_folder(ledger, entry.data)
    if run is None:
        return BatchFiles(batch, {}, [])
    place, missing = folder / "batches" / str(batch), []
    place.mkdir(parents=True)
    files: dict[str, str] = {}
    for name, word in _LINKS.items():
        is_right = name != RECORD or file_sha256(run / name) == entry.data.get("record")
        if (run / name).is_file() and is_right:
            shutil.copyfile(run / name, place / name)
            files[word] = f"batches/{batch}/{name}"
        elif name != _REPORT:  # which is made where somebody asks for it
            missing.append(word)
    for plot in sorted((run / "plots").glob("*.png")):  # of the card
        (place / "plots").mkdir(exist_ok=True)
        shutil.copyfile(plot, place / "plots" / plot.name)
    return BatchFiles(batch, files, missing)


def _verifications(folder: Path, ledger: Ledger, entries: Sequence[Entry]) -> list[str]:
    """Copy the files of verifications; those that are missing, as words."""
    wanted = [entry for entry in entries if entry.event == VERIFIED and entry.data.get("record")]
    present: Mapping[str, Path] = files_by_hash(ledger) if wanted else {}
    missing = []
    for entry in wanted:
        file = present.get(entry.data["record"])
        if file is None:
            missing.append(f"the verification of request {entry.data['request']} (entry {entry.number})")
            continue
        (folder / "verifications").mkdir(exist_ok=True)
        shutil.copyfile(file, folder / "verifications" / f"{entry.data['request']}-{entry.number}.json")
    return missing


def _require_free(target: Path, ledger: Ledger) -> None:
    present = {file.name for file in target.iterdir()} if target.is_dir() else set()
    is_export = {PAGE, SUMS, LEDGER_FILE} <= present
    inside = ledger.folder.resolve() in [target.resolve(), *target.resolve().parents]
    if inside or target.is_file() or (present and not is_export):
        raise input_error(
            expected="a new or an empty folder, or that of an earlier export",
            got=f"{target.name}, " + ("in the ledger's own folder" if inside else "which is or holds something else"),
            why="what is there would be mixed with the bundle, or lost",
            fix="name another folder",
        )


def _require_no_place(folder: Path, ledger: Ledger) -> None:
    """Raise where a file names the ledger's place or the user's folder: what leaves the machine says neither."""
    named = {ledger.folder.resolve(), ledger.folder.absolute(), Path.home()}
    places = [f"{place}/".encode() for place in named]
    for file in sorted(folder.rglob("*")):
        if file.is_file() and file.suffix != ".png" and any(place in file.read_bytes() for place in places):
            name = file.relative_to(folder).as_posix()
            raise input_error(
                expected="files that name no place on this machine",
                got=f"{name}, which names a folder of it",
                why="the bundle goes to people outside",
                fix="name no places in scope and reference of requests; have the run's record and card made again",
            )


def _exchange(unfinished: Path, target: Path) -> None:
    """Put the bundle in its place; an earlier one goes when the new one is whole."""
    former = unfinished.with_name(f"{unfinished.name}.former")
    if target.exists():
        target.rename(former)
    unfinished.rename(target)
    shutil.rmtree(former, ignore_errors=True)
