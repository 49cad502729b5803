"""The files of cohorts: a folder each, with a manifest of its rows and the adapter trained on them. Trains nothing."""

import hmac
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import input_error, require_choice
from ..model.weight_files import weight_file_hashes
from ..results.files import atomic_write_text
from .places import COHORTS, SALT_FILE

_MANIFEST = "cohort.json"
_DROPPED = "dropped.json"


@dataclass(frozen=True)
class Cohort:
    """Rows that have an adapter of their own.

    Attributes:
        name: of the cohort, and of its adapter when it is loaded.
        rows: digests, in the order in which they were given to the training.
        forms: of the rows (`hf_unlearn.data.text_digests.row_form`).
        seed: of the training, made of the rows' digests alone.
        base: hash of the weights that the adapter was trained on.
        weights: SHA-256 of the adapter's files by name.
        folder: of the adapter.
    """

    name: str
    rows: tuple[str, ...]
    forms: tuple[str, ...]
    seed: int
    base: str
    weights: dict[str, str]
    folder: Path

    @property
    def manifest(self) -> Path:
        """Its file."""
        return self.folder.parent / _MANIFEST


def cohort_folder(folder: Path, name: str) -> Path:
    """Where all of a cohort lies."""
    return folder / COHORTS / name


def read_cohorts(folder: Path, salt: bytes) -> dict[str, Cohort]:
    """The finished cohorts of a folder that were not dropped, by name, in the order of the names.

    Raises:
        ValueError: a manifest was changed.
    """
    cohorts, dropped = {}, dropped_cohorts(folder, salt)
    for manifest in sorted((folder / COHORTS).glob(f"*/{_MANIFEST}")):
        stored = _stored(manifest, salt)
        stored |= {name: tuple(stored[name]) for name in ("rows", "forms")}
        stored["folder"] = manifest.parent / stored["folder"]
        if stored["name"] not in dropped:
            cohorts[stored["name"]] = Cohort(**stored)
    return cohorts


def write_manifest(cohort: Cohort, salt: bytes) -> None:
    """Make an adapter that is saved the cohort's, and remove what was its adapter before."""
    _write(cohort.manifest, {**asdict(cohort), "folder": cohort.folder.name}, salt)
    for former in cohort.folder.parent.iterdir():
        if former.is_dir() and former != cohort.folder:
            shutil.rmtree(former)


def dropped_cohorts(folder: Path, salt: bytes) -> list[str]:
    """Names of the cohorts that were dropped."""
    file = folder / COHORTS / _DROPPED
    names: list[str] = _stored(file, salt)["names"] if file.is_file() else []
    return names


def drop_cohort(folder: str | Path, name: str) -> None:
    """Delete a cohort's rows exactly: its adapter is removed, with what else lies in its folder. No weight moves.

    `load_cohorts` gives afterwards what it gives after a training that never had these rows, bit for bit. Their name
    is remembered, and `train_cohorts` refuses rows of it.

    Args:
        folder: of the cohorts.
        name: of the cohort; `read_log(folder).cohorts_of(rows)` tells it.

    Raises:
        ValueError: there is no such cohort.
    """
    place = Path(folder)
    salt = (place / SALT_FILE).read_bytes() if (place / SALT_FILE).is_file() else b""
    dropped = dropped_cohorts(place, salt)
    require_choice("name", name, [*read_cohorts(place, salt), *dropped])
    # Remembered first: a process that is killed while it deletes has dropped the cohort all the same.
    _write(place / COHORTS / _DROPPED, {"names": sorted({*dropped, name})}, salt)
    if cohort_folder(place, name).is_dir():
        shutil.rmtree(cohort_folder(place, name))


def require_unchanged(cohort: Cohort) -> None:
    """Raise unless the adapter's files are those that the training wrote."""
    present = weight_file_hashes(cohort.folder)
    if present != cohort.weights:
        differing = sorted({*present.items()} ^ {*cohort.weights.items()})[0][0]
        raise input_error(
            expected=f"the adapter of cohort {cohort.name} as its training wrote it",
            got=f"another {differing}",
            why="what the manifest says of its rows would not hold for these weights",
            fix="take it from a copy, or drop the cohort and train it again under another name",
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
