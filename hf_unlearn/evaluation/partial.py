"""The findings of an unfinished evaluation on disk, so that a killed one goes on; deleted once there is a result.

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

# digest of a row or a prompt -> its figures, or the ids of its answer
Findings = dict[str, np.ndarray]


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
        self._findings: dict[str, Findings] = {}
        if folder is None:
            return
        same_and_findings: list[Any] = [None, None]
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)  # on every rank: nodes may have disks of their own
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            files = [_read(path) for path in sorted(folder.glob("*.jsonl"))]
            stored = [file for file in files if file is not None]
            same_and_findings = [
                all(written_for == fingerprint for written_for, _ in stored),
                _merged([findings for _, findings in stored]),
            ]
        if accelerator.num_processes > 1:
            broadcast_object_list(same_and_findings)
        same, findings = same_and_findings
        if not same:
            raise input_error(
                expected=f"findings of this model, tokenizer and settings in {folder.name}",
                got="those of another evaluation",
                why="numbers of two models would end up in one result",
                fix="pass another folder, or delete this one",
            )
        self._findings = findings
        starts = len(list(folder.glob(f"rank{accelerator.process_index}-*.jsonl")))
        self._path = folder / f"rank{accelerator.process_index}-{starts}.jsonl"
        self._path.touch(mode=0o600)  # the folder may be one that others can look into
        self._write({"fingerprint": fingerprint})

    def of(self, kind: str) -> Findings:
        """What earlier starts have found of a kind."""
        return self._findings.get(kind, {})

    def add(self, kind: str, findings: Mapping[str, np.ndarray]) -> None:
        """Keep the findings of a batch."""
        if self._folder is not None:
            self._write([kind, {key: _encoded(value) for key, value in findings.items()}])

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


def _read(path: Path) -> tuple[Any, list[tuple[str, Findings]]] | None:
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
        (kind, {key: _decoded(value) for key, value in findings.items()}) for kind, findings in stored
    ]


def _merged(files: list[list[tuple[str, Findings]]]) -> dict[str, Findings]:
    merged: dict[str, Findings] = {}
    for lines in files:
        for kind, findings in lines:
            merged.setdefault(kind, {}).update(findings)
    return merged
