"""How files of a run come to their places and go: by renaming, so that a process that dies leaves all or nothing."""

import re
import shutil
from pathlib import Path

from ...results.card_file import CARD_FILE
from ...results.record import RECORD_FILE
from .mark import checkpoints_in, fault_of, flush_to_disk, read_mark
from .run_starts import RunStarts

UNFINISHED = ".unfinished"  # in an output folder: what is being written, and is not there yet for anybody else

_TEMPORARY = re.compile(r"\..+\.(json|md|jsonl)\.\d+")  # of `results.files.atomic_write_text`
_WEIGHTS = re.compile(r"(model|pytorch_model)(-\d+-of-\d+)?\.(safetensors|bin)(\.index\.json)?")


def recover(folder: Path) -> None:
    """Put away what a killed run has left in its output folder; a checkpoint that lacked its last move gets it."""
    unfinished = folder / UNFINISHED
    for step, staged in checkpoints_in(unfinished).items():
        place = folder / f"checkpoint-{step}"
        if read_mark(staged) is not None and fault_of(staged) is None and not place.exists():
            put_in_place(staged, place)
    shutil.rmtree(unfinished, ignore_errors=True)
    for path in folder.iterdir():
        if _TEMPORARY.fullmatch(path.name) and path.is_file():
            path.unlink(missing_ok=True)


def put_in_place(staged: Path, place: Path) -> None:
    """Rename a folder to its place; what was there leaves it first, and is deleted."""
    replaced = staged.parent / f"replaced-{place.name}"
    if place.exists():
        place.rename(replaced)
    staged.rename(place)
    flush_to_disk(place.parent)
    shutil.rmtree(replaced, ignore_errors=True)


def move_files(source: Path, place: Path) -> None:
    """Move the files of a saved model to their place, one by one, each of them whole.

    The record leaves first and is written again last: until then the folder is no finished run's. The card in
    `source` is PEFT's, and stays behind.
    """
    names = [path.relative_to(source) for path in sorted(source.rglob("*")) if path.is_file()]
    weights = {name.name for name in names if _WEIGHTS.fullmatch(name.name)}
    (place / RECORD_FILE).unlink(missing_ok=True)
    for path in place.iterdir() if weights else ():  # shards of an earlier save, of which there were more
        if _WEIGHTS.fullmatch(path.name) and path.name not in weights:
            path.unlink()
    for name in names:
        if name.name != CARD_FILE:
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).replace(place / name)


def rotate(folder: Path, starts: RunStarts, limit: int | None, newest: Path, best: str | None) -> None:
    """Delete the oldest checkpoints of a run beyond `save_total_limit`; never the newest, nor the best.

    Args:
        folder: of the checkpoints.
        starts: of the run; checkpoints of others are left alone.
        limit: checkpoints to keep; None for all.
        newest: was written just now, and is whole.
        best: folder of the best one.
    """
    if limit is None or limit <= 0:
        return
    own = [path for step, path in checkpoints_in(folder).items() if starts.has(read_mark(path), step)]
    kept = {newest.name, *([] if best is None else [Path(best).name])}
    deletable = [path for path in own if path.name not in kept]
    for path in deletable[: max(0, len(own) - max(limit, len(kept)))]:
        gone = folder / UNFINISHED / f"deleted-{path.name}"
        gone.parent.mkdir(exist_ok=True)
        path.rename(gone)  # at once: half of a checkpoint could be taken for a whole one of an earlier version
        shutil.rmtree(gone, ignore_errors=True)
    shutil.rmtree(folder / UNFINISHED, ignore_errors=True)
