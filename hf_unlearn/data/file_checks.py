"""Checks of files of rows before a reader takes them for something else."""

import codecs
import csv
from pathlib import Path

from ..errors import input_error


def require_utf8(path: Path) -> None:
    """Raise for a text file of another encoding, of which readers make rows that nobody can read."""
    decoder, done = codecs.getincrementaldecoder("utf-8")(), 0
    with path.open("rb") as file:
        try:
            while part := file.read(2**20):
                decoder.decode(part)
                done += len(part)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError as error:
            raise unreadable(path, f"bytes that are not UTF-8, at {done + error.start} or just before") from None


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
