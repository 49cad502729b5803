"""The files of cohorts: an adapter a folder, with a manifest of the rows that it was trained on. Trains nothing."""

import hmac
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import input_error
from ..model.weight_files import weight_file_hashes
from ..results.files import atomic_write_text
from .places import COHORTS

MANIFEST = "cohort.json"
DROPPED = "dropped.json"


@dataclass(frozen=True)
class Cohort:
    """Rows that have an adapter of their own.

    Attributes:
        name: of the cohort, and of its adapter.
        folder: of the adapter.
        rows: digests, in the order in which they were given to the training.
        forms: of the rows (`hf_unlearn.data.text_digests.row_form`).
        seed: of the training, made of the rows' digests alone.
        weights: SHA-256 of the adapter's files by name.
    """

    name: str
    folder: Path
    rows: tuple[str, ...]
    forms: tuple[str, ...]
    seed: int
    weights: dict[str, str]

    @property
    def manifest(self) -> Path:
        """Its file."""
        return self.folder / MANIFEST


def read_cohorts(folder: Path, salt: bytes) -> dict[str, Cohort]:
    """The finished cohorts of a folder, by name, in the order of the names.

    Raises:
        ValueError: a manifest was changed.
    """
    cohorts = {}
    for manifest in sorted((folder / COHORTS).glob(f"[!.]*/{MANIFEST}")):
        stored = _stored(manifest, salt)
        stored |= {name: tuple(stored[name]) for name in ("rows", "forms")}
        cohorts[stored["name"]] = Cohort(folder=manifest.parent, **stored)
    return cohorts


def write_manifest(cohort: Cohort, salt: bytes, folder: Path) -> None:
    """Write the manifest of a cohort into the folder where its adapter lies now."""
    stored = asdict(cohort)
    del stored["folder"]
    _write(folder / MANIFEST, stored, salt)


def dropped_cohorts(folder: Path, salt: bytes) -> list[str]:
    """Names of the cohorts that were dropped."""
    file = folder / COHORTS / DROPPED
    return _stored(file, salt)["names"] if file.is_file() else []


def write_dropped(folder: Path, salt: bytes, names: Iterable[str]) -> None:
    """Remember which cohorts were dropped."""
    _write(folder / COHORTS / DROPPED, {"names": sorted(set(names))}, salt)


def require_unchanged(cohort: Cohort) -> None:
    """Raise unless the adapter's files are those that the training wrote."""
    present = weight_file_hashes(cohort.folder)
    if present != cohort.weights:
        differing = sorted({*present.items()} ^ {*cohort.weights.items()})[0][0]
        raise input_error(
            expected=f"the adapter of cohort {cohort.name} as its training wrote it",
            got=f"another {differing}",
            why="what the manifest says of its rows would not hold for these weights",
            fix="take it from a copy, or drop the cohort and train it again",
        )


def _write(file: Path, stored: Mapping[str, Any], salt: bytes) -> None:
    atomic_write_text(file, json.dumps({**stored, "code": _code(stored, salt)}, indent=1))


def _stored(file: Path, salt: bytes) -> dict[str, Any]:
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
        code = stored.pop("code")
    except (ValueError, KeyError, AttributeError):
        stored, code = {}, ""
    if not hmac.compare_digest(code, _code(stored, salt)):
        raise input_error(
            expected=f"{file.parent.name}/{file.name} as it was written",
            got="one that was changed, or of another folder",
            why="it says which rows an adapter was trained on",
            fix="take the file from a copy",
        )
    return stored


def _code(stored: Mapping[str, Any], salt: bytes) -> str:
    return hmac.new(salt, json.dumps(stored, sort_keys=True).encode(), "sha256").hexdigest()
