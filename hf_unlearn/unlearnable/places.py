"""What lies where in the folder of a logged training, and the salt of its digests."""

import contextlib
import os
import secrets
from pathlib import Path

SALT_FILE = "salt"
ROWS = "rows"  # a file for each set: the digest of a row a line, in the order of the set
START = "start"  # weights and random state before the first step
COHORTS = "cohorts"


def steps_file(folder: Path, rank: int) -> Path:
    """The step log of a rank."""
    return folder / f"steps-{rank}.jsonl"


def rows_file(folder: Path, role: str) -> Path:
    """The digests of a set."""
    return folder / ROWS / f"{role}.txt"


def start_weights(folder: Path) -> Path:
    """The weights before the first step, where they are kept."""
    return folder / START / "weights.safetensors"


def random_state(folder: Path, rank: int) -> Path:
    """The state of the random number generators of a rank before the first step."""
    return folder / START / f"random_state_{rank}.pt"


def make_salt(folder: Path) -> bytes:
    """The salt of a folder, which only its owner reads; made where there is none."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / SALT_FILE
    if not path.is_file():
        unfinished = path.with_name(f".{SALT_FILE}.{os.getpid()}")
        with open(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as stream:
            stream.write(secrets.token_bytes(32))
        with contextlib.suppress(FileExistsError):  # another rank was first, and its salt is the one
            os.link(unfinished, path)
        unfinished.unlink()
    return path.read_bytes()
