"""The completion mark of a checkpoint, and whether a checkpoint is whole: with its mark, or by its files alone."""

import json
import os
import re
import zipfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...results.card_file import CARD_FILE
from ...results.files import atomic_write_text, read_json
from ...results.record import RECORD_FILE
from ...results.schema import SchemaError, check_schema

MARK_FILE = "unlearning/checkpoint.json"
STATE_FILE = "trainer_state.json"
_OF_DEEPSPEED = "latest"  # of its shards, written after them
_NAME = re.compile(r"checkpoint-(\d+)")
_REWRITTEN = (RECORD_FILE, CARD_FILE)  # `hf-unlearn card` and `evaluate` write these again into a checkpoint's folder


@dataclass(frozen=True)
class Mark:
    """What a checkpoint says of itself, written last.

    Attributes:
        step: optimizer steps taken.
        lineage: of the run that wrote it: [run, last step that counts, or None] for each time it was started.
        tokenizer: hash of the tokenizer's vocabulary and special tokens.
        chat_template: hash of the chat template.
        files: bytes of every file, by its path in the checkpoint.
    """

    step: int
    lineage: list[list[Any]]
    tokenizer: str
    chat_template: str
    files: dict[str, int]


def step_of(folder: Path) -> int | None:
    """The step in a checkpoint's name; None for a folder of another name."""
    match = _NAME.fullmatch(folder.name)
    return None if match is None else int(match[1])


def checkpoints_in(folder: str | Path) -> dict[int, Path]:
    """The checkpoints of a folder by step, whole or not."""
    if not Path(folder).is_dir():
        return {}
    named = {step_of(path): path for path in Path(folder).iterdir() if path.is_dir()}
    return {step: named[step] for step in sorted(step for step in named if step is not None)}


def write_mark(folder: Path, step: int, lineage: list[list[Any]], tokenizer: str, chat_template: str) -> None:
    """Declare a checkpoint whole: all of its files are on the disk, and the mark says how long they are."""
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    sizes = {name: path.stat().st_size for name, path in files.items() if name not in _REWRITTEN}
    mark = Mark(step, lineage, tokenizer, chat_template, sizes)
    atomic_write_text(folder / MARK_FILE, json.dumps(asdict(mark), indent=1) + "\n")
    for path in files.values():
        flush_to_disk(path)


def flush_to_disk(path: Path) -> None:
    """Wait until a file or a folder is on the disk: a machine that loses power then has it whole."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_mark(folder: Path) -> Mark | None:
    """The mark of a checkpoint; None where there is none that can be read."""
    try:
        stored = read_json(folder / MARK_FILE)
        check_schema(stored, Mark)
        require_starts(stored["lineage"])
    except (OSError, ValueError, SchemaError):
        return None
    return Mark(**stored)


def require_starts(lineage: Any) -> None:
    """Raise a SchemaError for what is no lineage: one [run, last step that counts] or more, either of them null."""
    check_schema(lineage, list[list[str | int | None]], "lineage")
    pairs = [len(s) == 2 and isinstance(s[0], str | None) and isinstance(s[1], int | None) for s in lineage]
    if not pairs or not all(pairs):
        raise SchemaError("lineage", "one pair of a run and a step, or more", "others")


def has_optimizer(folder: Path) -> bool:
    """Whether a whole checkpoint has the optimizer's state, which `save_only_model` leaves out."""
    mark = read_mark(folder)
    return mark is None or any(name.startswith("optimizer") or name == _OF_DEEPSPEED for name in mark.files)


def fault_of(folder: Path) -> str | None:
    """What a checkpoint lacks, as the end of a sentence; None for a whole one.

    A checkpoint with a mark has every file of it at its length. One without, of an earlier version or of plain
    Trainer, has a readable state, whole weights, and whole states of optimizer, schedule and random numbers.
    """
    mark = read_mark(folder)
    return next(_faults(folder) if mark is None else _faults_by_mark(folder, mark), None)


def _faults_by_mark(folder: Path, mark: Mark) -> Iterator[str]:
    if not (folder / RECORD_FILE).is_file():
        yield f"{RECORD_FILE} is missing"
    for name, size in mark.files.items():
        path = folder / name
        present = path.stat().st_size if path.is_file() else None
        if present is None:
            yield f"{name} is missing"
        elif present != size:
            yield f"{name} has {present} of {size} bytes"


def _faults(folder: Path) -> Iterator[str]:
    try:
        step = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))["global_step"]
    except (OSError, ValueError, KeyError, TypeError):
        yield f"{STATE_FILE} is missing or cut off"
        return
    if step_of(folder) not in (None, step):
        yield f"{STATE_FILE} is of step {step}"
    for path in sorted(folder.rglob("*")):
        if path.suffix in (".pt", ".pth", ".bin") and not zipfile.is_zipfile(path):
            yield f"{path.name} is cut off"
        if path.suffix == ".safetensors" and not _is_whole_safetensors(path):
            yield f"{path.name} is cut off"
        if path.name.endswith(".index.json"):
            yield from _missing_shards(path)
    if (folder / _OF_DEEPSPEED).is_file():
        engine = folder / (folder / _OF_DEEPSPEED).read_text().strip()
        if not any(engine.glob("*")):
            yield f"{engine.name} of DeepSpeed is missing"
        return
    weights = ("model*.safetensors", "adapter_model*", "*/adapter_model*", "pytorch_model*")
    for what, patterns in {
        "the weights are": weights,
        "the optimizer's state (as save_only_model leaves it out) is": ("optimizer*",),
        "the schedule's state is": ("scheduler.pt",),
        "the state of the random numbers is": ("rng_state*.pth",),
    }.items():
        if not any(path for pattern in patterns for path in folder.glob(pattern)):
            yield f"{what} missing"


def _missing_shards(index: Path) -> Iterator[str]:
    try:
        shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        yield f"{index.name} is cut off"
        return
    yield from (f"{shard} is missing" for shard in sorted(shards) if not (index.parent / shard).is_file())


def _is_whole_safetensors(path: Path) -> bool:
    """Whether a file is as long as its own header says."""
    with path.open("rb") as file:
        header = file.read(8)
        length = int.from_bytes(header, "little")
        if len(header) < 8 or length > path.stat().st_size:
            return False
        try:
            tensors = json.loads(file.read(length))
            ends = [tensor["data_offsets"][1] for name, tensor in tensors.items() if name != "__metadata__"]
        except (ValueError, KeyError, TypeError, AttributeError):
            return False
    return path.stat().st_size == 8 + length + max(ends, default=0)
