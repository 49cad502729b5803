"""Writes files so that a reader sees a whole file or the former one."""

import os
from collections.abc import Callable
from pathlib import Path


def atomic_write(path: str | os.PathLike[str], write: Callable[[Path], object]) -> Path:
    """Write a file, its folder too where it is missing; a process that is killed leaves the former file.

    Args:
        path: of the file.
        write: writes all of it to the place that it is given.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        write(unfinished)
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)  # still there when the disk is full
    return target


def atomic_write_text(path: str | os.PathLike[str], text: str) -> Path:
    """`atomic_write` of a text."""
    return atomic_write(path, lambda unfinished: unfinished.write_text(text, encoding="utf-8"))
