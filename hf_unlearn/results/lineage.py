"""Where the weights of a run come from and what became of them, so that runs in sequence can be linked and checked."""

import functools
import hashlib
import os
import subprocess
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from ..version import __version__

IN_MEMORY = "in memory"  # stands for a file's name where weights came from none
CHANGES = "+changes"  # after the commit of a checkout that differs from it
_SHOWN = 3  # files whose hashes are shown
_PACKAGE = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Lineage:
    """The link from a run to the one before it: hashes of its weights going in and coming out.

    Attributes:
        date: when the weights were done, in UTC as ISO 8601.
        requests: ids of the deletion requests that the run carried out.
        parent: name of the run that it continues from; None where it continues from none.
        parent_record: SHA-256 of that run's results.json as it lay there when this run started.
        weights_in: SHA-256 of the safetensors files that the model before was loaded from, by name; of an adapter its
            own and under `base/` those of its base model. For a model in memory, "in memory" and `hash_weights` of it.
        weights_out: the same of the files that the run saved in its folder.
        code: version of this package, with the commit where it lies in a git checkout ("+changes" where that differs).
        recipe: SHA-256 of the resolved arguments, places and names of the user's left out.
    """

    date: str = ""
    requests: tuple[str, ...] = ()
    parent: str | None = None
    parent_record: str | None = None
    weights_in: dict[str, str] = field(default_factory=dict)
    weights_out: dict[str, str] = field(default_factory=dict)
    code: str = ""
    recipe: str = ""


def now() -> str:
    """The present moment in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def file_hash(path: str | os.PathLike[str]) -> str | None:
    """SHA-256 of a file; None where there is none."""
    if not Path(path).is_file():
        return None
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@functools.cache
def code_version() -> str:
    """The version of the package, and the commit of the git checkout that it is part of: "0.1.0, commit 1234abcd..."

    A package that is installed into a folder of another project's checkout is no part of it, and has no commit.
    """
    # Asked of the file, not of the folder: a virtual environment inside of a checkout is not tracked by it.
    if _git("ls-files", "--error-unmatch", "version.py") is None:
        return __version__
    commit, changed = _git("rev-parse", "HEAD"), _git("status", "--porcelain", "--", ".")
    if commit is None or changed is None:
        return __version__
    return f"{__version__}, commit {commit}{CHANGES if changed else ''}"


def _git(*words: str) -> str | None:
    """What git says in the package's folder; None where it fails or is not there."""
    # Variables of a git hook would name another repository.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "--no-optional-locks", "-C", str(_PACKAGE), *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, env=environment, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def lineage_words(lineage: Lineage) -> list[tuple[str, str]]:
    """The lineage in short, as pairs of words for people; full hashes are in results.json alone."""
    pairs = [("date", lineage.date)] if lineage.date else []
    if lineage.requests:
        pairs.append(("deletion requests", ", ".join(lineage.requests)))
    pairs.append(("continues from", lineage.parent or "no earlier run"))
    pairs += [
        (name, _short(hashes))
        for name, hashes in (("weights in", lineage.weights_in), ("weights out", lineage.weights_out))
        if hashes
    ]
    return [*pairs, *([("code", _short_code(lineage.code))] if lineage.code else [])]


def _short(hashes: dict[str, str]) -> str:
    shown = [f"{name} {sha[:12]}" for name, sha in list(hashes.items())[:_SHOWN]]
    more = len(hashes) - len(shown)
    return ", ".join([*shown, *([f"and {more} more"] if more else [])])


def _short_code(code: str) -> str:
    version, comma, commit = code.partition(", commit ")
    return f"hf_unlearn {version}{comma}{commit[:12]}{CHANGES if commit.endswith(CHANGES) else ''}"
