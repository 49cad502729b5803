"""A file of lines that are only ever added, each with a code over all before it, made with the salt."""

import hashlib
import hmac
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

_CODE = 16  # hex digits of a line's code: 64 bits, for who cannot make one at all


def read_lines(file: Path, salt: bytes) -> tuple[list[dict[str, Any]], str | None]:
    """The lines of a file, and what is wrong with the first that is not as it was written.

    What stands after the last line's end is what a killed process did not finish: no line, and nothing wrong.
    """
    lines: list[dict[str, Any]] = []
    code = ""
    for number, line in enumerate(_whole(file), 1):
        text, _, own = line.rpartition(b"\t")
        code = _code(salt, code, text)
        if not hmac.compare_digest(own, code.encode()):
            return lines, f"line {number} of {file.name} is not as it was written, or not the one that stood there"
        lines.append(json.loads(text))
    return lines, None


class LineWriter:
    """Adds lines to a file, each of which is with the operating system before `add` returns.

    A process that is killed leaves whole lines and at most one torn one, which the next writer removes. A machine that
    loses its power may lose lines after the last `settle`.

    Args:
        file: whole lines in it have been read, and are as they were written.
        salt: of the codes.
    """

    def __init__(self, file: Path, salt: bytes) -> None:
        self._salt, self._code = salt, ""
        lines = _whole(file)
        for line in lines:
            self._code = _code(salt, self._code, line.rpartition(b"\t")[0])
        self._stream: BinaryIO = open(file, "ab")  # noqa: SIM115 (closed by `close`, when training ends)
        self._stream.truncate(sum(len(line) + 1 for line in lines))

    def add(self, line: Mapping[str, Any]) -> None:
        """Add a line."""
        text = json.dumps(line, separators=(",", ":"), allow_nan=False).encode()
        self._code = _code(self._salt, self._code, text)
        self._stream.write(text + b"\t" + self._code.encode() + b"\n")
        self._stream.flush()

    def settle(self) -> None:
        """See to it that all lines are on the disk."""
        os.fsync(self._stream.fileno())

    def close(self) -> None:
        """No further lines."""
        self.settle()
        self._stream.close()


def _code(salt: bytes, before: str, text: bytes) -> str:
    return hmac.new(salt, before.encode() + text, hashlib.sha256).hexdigest()[:_CODE]


def _whole(file: Path) -> list[bytes]:
    return file.read_bytes().split(b"\n")[:-1] if file.is_file() else []
