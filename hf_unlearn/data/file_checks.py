"""Checks of files of rows before a reader takes them for something else."""

import codecs
import csv
import json
from pathlib import Path

from ..errors import input_error


def require_utf8(path: Path) -> None:
    """Raise for a text file of another encoding, of which readers make rows that nobody can read."""
    decoder, done = codecs.getincrementaldecoder("utf-8")(), 0
    with path.open("rb") as file:
        try:
            while part := file.read(2**20):
                if b"\0" in part:
                    raise unreadable(path, "NUL bytes, as a binary file or UTF-16 has them")
                decoder.decode(part)
                done += len(part)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError as error:
            raise unreadable(path, f"bytes that are not UTF-8, at {done + error.start} or just before") from None


def require_json_rows(path: Path) -> None:
    """Raise for JSON that is no array of objects, and for JSON Lines with a line that is no object.

    Readers make columns of other values, and Arrow ends the process on a lone `null`. An array is read as a whole, as
    readers do; of a line only its first character is looked at, and `broken_line` tells the rest once a reader fails.
    """
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            start = line.lstrip()[:1]
            if start == "[" and number == 1:
                break
            if start not in ("{", ""):
                raise unreadable(path, f"line {number}, which is no JSON object")
        else:
            return
    try:
        rows = json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise unreadable(path, f"an array that is no JSON from line {error.lineno} on") from None
    except RecursionError:
        raise unreadable(path, "lists in lists, nested too deep") from None
    other = next((index for index, row in enumerate(rows) if not isinstance(row, dict)), None)
    if other is not None:
        raise unreadable(path, f"an array whose element {other} is no object")


def broken_line(path: Path) -> str:
    """Which line of JSON Lines a reader has stumbled over, as the end of a sentence; "" where none is to be seen."""
    kinds: dict[str, type] = {}
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            try:
                row = json.loads(line) if line.strip() else {}
            except (json.JSONDecodeError, RecursionError):
                return f", at line {number}"
            for name, value in row.items() if isinstance(row, dict) else ():
                if value is not None and kinds.setdefault(name, type(value)) is not type(value):
                    return f", at line {number}, whose {name!r} is of another type than before"
    return ""


def csv_header(path: Path) -> list[str]:
    limit = csv.field_size_limit(2**31 - 1)  # a chapter of a book is longer than the default
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header, first = next(csv.reader(file), []), next(csv.reader(file), [])
    except (UnicodeDecodeError, csv.Error) as error:
        raise unreadable(path, f"a file the csv reader refuses ({type(error).__name__})") from None
    finally:
        csv.field_size_limit(limit)
    # pandas would drop the second of two like names, and read a row that is longer than its header one column off.
    if len(set(header)) < len(header) or len(first) > len(header):
        raise unreadable(path, f"a header of {len(header)} names, {len(set(header))} unlike, over {len(first)} values")
    return header


def unreadable(path: Path, got: str) -> ValueError:
    return input_error(
        expected=f"{path.name} to hold rows, as its ending says",
        got=got,
        why="rows lost while reading would be neither forgotten nor kept",
        fix="check the file: UTF-8; a csv with a header; for .json and .jsonl one object a line, or one array of them",
    )
