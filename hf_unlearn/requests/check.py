"""Whether a ledger and what it speaks of are as they were left: entries, records, weights, settings, salt."""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .chain import Entry, read_chain
from .index import Index, cut_off
from .ledger import LEDGER_FILE, SALT_FILE, Ledger
from .run_files import RECORD, file_sha256, files_by_hash, run_folder, weight_differences
from .state import ADDED, DONE, ERASED, EXPORTED, OPENED, REPLACED, VERIFIED

SETTINGS = "command.json"  # what runs of the ledger are started with
_PRIVATE = (SALT_FILE, SETTINGS, "places.json")
_COPY = "take {} from a copy of the ledger's folder"


@dataclass(frozen=True)
class Problem:
    """What is not as it was left.

    Attributes:
        text: a sentence.
        fix: what can be done about it.
    """

    text: str
    fix: str

    def __str__(self) -> str:
        return f"{self.text} What to do: {self.fix}."


def check_ledger(
    ledger: Ledger, model_folder: str | os.PathLike[str] | None = None, exports: Sequence[str | os.PathLike[str]] = ()
) -> list[Problem]:
    """What is not as the ledger left it; nothing is changed.

    Args:
        ledger: which one.
        model_folder: of the present weights where they are not those of a run of the ledger.
        exports: bundles of an earlier day, by which entries that were written anew as a whole are noticed.
    """
    seen = Index(ledger.folder).seen()
    entries, broken = read_chain(ledger.folder / LEDGER_FILE)
    problems = [Problem(f"{text[0].upper()}{text[1:]}.", _COPY.format(LEDGER_FILE)) for text in broken]
    lost = None if broken else cut_off(entries, seen)
    if lost is not None:
        problems.append(Problem(f"The ledger is {lost}.", _COPY.format(LEDGER_FILE)))
    problems += _exported(entries, exports)
    problems += _files(ledger, entries)
    for entry in entries:
        if entry.event == DONE:
            problems += _batch(ledger, entry, is_last=_present(entries) is entry)
    problems += _verifications(ledger, entries)
    if model_folder is not None:
        problems += _model(Path(model_folder), entries)
    return problems


def _present(entries: Sequence[Entry]) -> Entry | None:
    """The entry that the present weights come from."""
    outside = (OPENED, REPLACED)
    moved = [one for one in entries if one.event in outside or (one.event == DONE and one.data.get("weights"))]
    return moved[-1] if moved else None


def _exported(entries: Sequence[Entry], exports: Sequence[str | os.PathLike[str]]) -> Iterator[Problem]:
    heads = [
        (entry.data["entries"], entry.data["head"], f"the export of {entry.time[:10]}")
        for entry in entries
        if entry.event == EXPORTED
    ]
    for folder in exports:
        bundle, broken = read_chain(Path(folder) / LEDGER_FILE, exported=True)
        if broken or not bundle:
            yield Problem(f"The bundle {Path(folder).name} has no whole {LEDGER_FILE}.", "name another bundle")
            continue
        heads.append((bundle[-1].number, bundle[-1].hash, f"the bundle {Path(folder).name}"))
    for number, head, name in heads:
        if cut_off(entries, (number, head)) is not None:
            yield Problem(
                f"The entries up to {number} are others than in {name}: they were written anew.",
                f"compare both {LEDGER_FILE} line by line; the older file is evidence",
            )


def _files(ledger: Ledger, entries: Sequence[Entry]) -> Iterator[Problem]:
    if not (ledger.folder / SALT_FILE).is_file():
        yield Problem(
            "The salt is missing: no row can be known again as one that is to be deleted.",
            _COPY.format(SALT_FILE),
        )
    settings = next((one.data.get("settings") for one in entries if one.event == OPENED), None)
    if settings is not None and file_sha256(ledger.folder / SETTINGS) != settings:
        state = "was changed since" if (ledger.folder / SETTINGS).is_file() else "is missing, which was there when"
        yield Problem(
            f"{SETTINGS}, with the settings of runs, {state} the ledger was opened.",
            f"{_COPY.format(SETTINGS)}; runs since then may have had other settings",
        )
    for name in _PRIVATE:
        file = ledger.folder / name
        if os.name == "posix" and file.is_file() and file.stat().st_mode & 0o077:
            yield Problem(f"{name} can be read by others than its owner.", f"chmod 600 {name}")
    yield from _rows(ledger, entries)


def _rows(ledger: Ledger, entries: Sequence[Entry]) -> Iterator[Problem]:
    """Encrypted rows and places of requests; what lies elsewhere is told when it is loaded."""
    file = ledger.folder / "places.json"
    try:
        places = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    except ValueError:
        yield Problem("places.json was changed into something else.", _COPY.format("places.json"))
        return
    erased = {entry.data["request"] for entry in entries if entry.event == ERASED}
    for request in (entry.data["request"] for entry in entries if entry.event == ADDED):
        if request in erased:
            continue
        place = places.get(request)
        if place is None:
            yield Problem(f"places.json names no place of the rows of request {request}.", _COPY.format("places.json"))
        elif "encrypted" in place and file_sha256(ledger.folder / "rows" / place["encrypted"]) != place["sha256"]:
            what = f"rows/{place['encrypted']}"
            yield Problem(f"The encrypted rows of request {request} are missing or were changed.", _COPY.format(what))


def _batch(ledger: Ledger, entry: Entry, is_last: bool) -> Iterator[Problem]:
    data, folder = entry.data, run_folder(ledger, entry.data)
    if folder is None:
        return
    name = f"runs/{data['run']}"
    if not folder.is_dir():
        yield Problem(f"The folder of batch {data['batch']}, {name}, is missing.", _COPY.format(name))
        return
    digest = file_sha256(folder / RECORD)
    if digest != data.get("record"):
        state = "is missing" if digest is None else "is another file than was written"
        yield Problem(
            f"The record of batch {data['batch']}, {name}/{RECORD}, {state}.", _COPY.format(f"{name}/{RECORD}")
        )
    if not data.get("weights"):
        return
    missing, changed = weight_differences(folder, data["weights"])
    # The weights of an earlier batch may be thrown away: they knew what was deleted since.
    for names, state in ((missing if is_last else [], "missing"), (changed, "others than were written")):
        if names:
            yield Problem(
                f"Of the weights of batch {data['batch']}, {name}, these are {state}: {', '.join(names)}.",
                f"{_COPY.format('them')}; else verify all requests on the weights that are there"
                if is_last
                else "remove the weights of this batch, which later ones have replaced",
            )


def _verifications(ledger: Ledger, entries: Sequence[Entry]) -> Iterator[Problem]:
    wanted = [one for one in entries if one.event == VERIFIED and one.data.get("record")]
    present = files_by_hash(ledger) if wanted else {}
    for entry in wanted:
        if entry.data["record"] not in present:
            yield Problem(
                f"The file of the verification of request {entry.data['request']} (entry {entry.number}) is missing "
                "or was changed.",
                "take it from a copy of the ledger's folder, or verify again",
            )


def _model(folder: Path, entries: Sequence[Entry]) -> Iterator[Problem]:
    last = _present(entries)
    if last is None:
        return
    missing, changed = weight_differences(folder, last.data["weights"] if last.event == DONE else last.data["model"])
    for names, state in ((missing, "missing"), (changed, "others than the ledger names")):
        if names:
            yield Problem(
                f"Of the weight files in {folder.name} these are {state}: {', '.join(names)}.",
                "name the folder of the ledger's present model, or record that it was replaced and verify again",
            )
