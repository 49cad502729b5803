"""What an evaluation has found so far, on disk, so that a killed one goes on. Never the result, and gone with it.

Answers are kept as token ids: while an evaluation runs, its folder is as confidential as the forget set.
"""

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from ..errors import input_error

# key of an item -> what was found for it
HeadResult = dict[str, np.ndarray]


class PartialResults:
    """Findings by kind and key, read when an evaluation starts and added to batch by batch.

    Each rank and each start writes a file of its own, so that no file is ever appended to behind a line that a kill
    tore off; any number of ranks may go on from any other number's files.

    Args:
        folder: where the findings are kept; None keeps none.
        fingerprint: of all that they depend on (model, tokenizer, settings) but the rows, which the keys stand for.
        accelerator: whose ranks share the work.

    Raises:
        ValueError: the folder holds the findings of another model or other settings.
    """

    def __init__(self, folder: Path | None, fingerprint: str, accelerator: Accelerator) -> None:
        self._folder, self._accelerator = folder, accelerator
        self._found: dict[str, HeadResult] = {}
        if folder is None:
            return
        read: list[Any] = [None, None]
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)  # on every rank: nodes may have disks of their own
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            stored = [_read(path) for path in sorted(folder.glob("*.jsonl"))]
            read = [
                all(each[0] == fingerprint for each in stored if each),
                _merged([each[1] for each in stored if each]),
            ]
        if accelerator.num_processes > 1:
            broadcast_object_list(read)
        if not read[0]:
            raise input_error(
                expected=f"findings of this model, tokenizer and settings in {folder.name}",
                got="those of another evaluation",
                why="numbers of two models would end up in one result",
                fix="pass another folder, or delete this one",
            )
        self._found = read[1]
        starts = len(list(folder.glob(f"rank{accelerator.process_index}-*.jsonl")))
        self._path = folder / f"rank{accelerator.process_index}-{starts}.jsonl"
        self._path.touch(mode=0o600)  # the folder may be one that others can look into
        self._write({"fingerprint": fingerprint})

    def of(self, kind: str) -> HeadResult:
        """What is known of a kind."""
        return self._found.get(kind, {})

    def add(self, kind: str, found: Mapping[str, np.ndarray]) -> None:
        """Keep the findings of a batch."""
        if self._folder is not None:
            self._write([kind, {key: _encoded(value) for key, value in found.items()}])

    def _write(self, line: Any) -> None:
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def remove(self) -> None:
        """Delete the findings, once the result is whole, and the folder unless something else lies in it."""
        if self._folder is None:
            return
        self._accelerator.wait_for_everyone()
        if self._accelerator.is_main_process:
            for path in self._folder.glob("rank*-*.jsonl"):
                path.unlink()
            if not any(self._folder.iterdir()):
                self._folder.rmdir()


def _encoded(value: np.ndarray) -> list[Any]:
    return [value.dtype.str, value.shape, base64.b64encode(np.ascontiguousarray(value).tobytes()).decode()]


def _decoded(stored: list[Any]) -> np.ndarray:
    kind, shape, data = stored
    return np.frombuffer(base64.b64decode(data), dtype=kind).reshape(shape)


def _read(path: Path) -> tuple[Any, list[tuple[str, HeadResult]]] | None:
    """The fingerprint of a file and its findings; None where a kill left it empty."""
    lines: list[Any] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:  # torn off by a kill, so the last one
            break
    if not lines:
        return None
    head, *stored = lines
    if not isinstance(head, dict) or "fingerprint" not in head:
        return None, []  # no file of ours, and no fingerprint that any evaluation has
    return head["fingerprint"], [
        (kind, {key: _decoded(value) for key, value in found.items()}) for kind, found in stored
    ]


def _merged(files: list[list[tuple[str, HeadResult]]]) -> dict[str, HeadResult]:
    merged: dict[str, HeadResult] = {}
    for lines in files:
        for kind, found in lines:
            merged.setdefault(kind, {}).update(found)
    return merged
