"""Finds the runs that are to be compared: folders of runs, and folders that contain such."""

import os
from collections.abc import Iterable
from pathlib import Path

from ...errors import input_error
from ..record import RECORD_FILE
from ..report import Run, read_run


def find_runs(folders: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """The folders of runs: those that are named, and those that lie in a named folder which is no run itself.

    A folder that is named twice counts once.

    Raises:
        ValueError: nothing is named, or a folder that neither is a run nor contains one.
    """
    found: dict[Path, Path] = {}
    for named in folders:
        place = Path(named)
        place = place.parent if place.name == RECORD_FILE else place
        inside = [place] if (place / RECORD_FILE).is_file() else sorted(path.parent for path in _records_in(place))
        if not inside:
            raise _no_run(place)
        found |= {folder.resolve(): folder for folder in inside if folder.resolve() not in found}
    if not found:
        raise input_error(
            expected="at least one folder of a run",
            got="none",
            why="a comparison is made of what lies in the folders of runs",
            fix="hf-unlearn compare unlearned/npo-seed-0 unlearned/simnpo-seed-0, or a folder that contains runs",
        )
    return list(found.values())


def unfinished_in(folders: Iterable[str | os.PathLike[str]]) -> list[str]:
    """Names of folders beside those of runs in which one was begun and has left no record yet."""
    names = []
    for named in folders:
        place = Path(named)
        if place.is_dir() and not (place / RECORD_FILE).is_file():
            begun = (path.parent for mark in ("checkpoint-*", "series.json") for path in place.glob(f"*/{mark}"))
            names += [folder.name for folder in dict.fromkeys(begun) if not (folder / RECORD_FILE).is_file()]
    return sorted(names)


def read_runs(folders: Iterable[str | os.PathLike[str]]) -> list[tuple[Path, Run]]:
    """The runs in folders, with the scores of single rows where they lie beside the record.

    Raises:
        ValueError: a folder without a run, or a file of it that is of another kind.
    """
    return [(folder, read_run(folder)) for folder in find_runs(folders)]


def _records_in(place: Path) -> Iterable[Path]:
    return place.glob(f"*/{RECORD_FILE}") if place.is_dir() else ()


def _no_run(place: Path) -> ValueError:
    got = "nothing" if not place.exists() else "a file" if place.is_file() else f"no {RECORD_FILE} in it or below it"
    return input_error(
        expected=f"{place.name or 'the folder'} to be the folder of a run, or to contain such folders",
        got=got,
        why=f"figures are read from the {RECORD_FILE} that hf-unlearn train leaves at its end",
        fix="pass output folders of runs that have ended; hf-unlearn train --methods A B --seeds 0 1 2 makes some",
    )
