"""The files that entries of a ledger speak of by their hash: records of batches, verifications, weights."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..model.weight_files import weight_file_hashes
from .ledger import Ledger

RECORD = "results.json"
_VERIFICATIONS = ("*.json", "*/*.json", "runs/*/*.json", "runs/*/*/*.json")  # below a ledger's folder


def file_sha256(file: Path) -> str | None:
    """SHA-256 of a file; None where there is none."""
    if not file.is_file():
        return None
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def run_folder(ledger: Ledger, data: Mapping[str, Any]) -> Path | None:
    """The folder of a done batch; None where it has none, since nothing was to do."""
    return None if data.get("run") is None else ledger.runs / data["run"]


def files_by_hash(ledger: Ledger) -> dict[str, Path]:
    """The JSON files of a ledger's folder and its runs by their SHA-256."""
    files = sorted({file for pattern in _VERIFICATIONS for file in ledger.folder.glob(pattern)})
    return {digest: file for file in files if (digest := file_sha256(file)) is not None}


def weight_differences(folder: Path, wanted: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Names of the weight files that are missing from a folder, and of those that are others than were written.

    Files of a base model, whose names begin with a folder, do not lie there.
    """
    own = {name: digest for name, digest in wanted.items() if "/" not in name}
    present = weight_file_hashes(folder)
    missing = [name for name in own if name not in present]
    changed = [name for name in own if name in present and present[name] != own[name]]
    return missing, [*changed, *(name for name in present if name not in own)]
