"""The identity of a row as text, salted: the same for a string row and its chat form, and before any tokenizer."""

import hashlib
import hmac
import json
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from ..errors import input_error

# Columns that hold what a row says, in the order in which it says it, and their form: what is said in one form has the
# same digest whatever its columns, and another in every other form. The first group that a row has is taken.
_GROUPS = {
    ("prompt", "completion"): "turns",
    ("prompt", "chosen", "rejected"): "preferences",
    ("chosen", "rejected"): "preferences without a prompt",
    ("messages",): "turns",
    ("question", "answer"): "turns",
    ("text",): "text",
    ("input_ids", "labels"): "tokens",
}


def row_texts(row: Mapping[str, Any]) -> tuple[str, ...]:
    """What a row says, part by part, whatever its format; whitespace at the ends and Unicode's forms do not count.

    Raises:
        ValueError: the row has the columns of no known format.
    """
    return tuple(part for name in _group(row) for part in _parts(row[name]))


def row_form(row: Mapping[str, Any]) -> str:
    """The form that a row has, in a word or a few: the digests of rows of two forms cannot be compared.

    Raises:
        ValueError: the row has the columns of no known format.
    """
    return _GROUPS[_group(row)]


def _group(row: Mapping[str, Any]) -> tuple[str, ...]:
    group = next((names for names in _GROUPS if all(row.get(name) is not None for name in names)), None)
    if group is None:
        raise input_error(
            expected="rows with prompt and completion, messages, text, question and answer, or input_ids and labels",
            got=f"a row with {', '.join(row)}",
            why="a row is known again by what it says",
            fix="rename the columns, on the command line with --forget_columns",
        )
    return group


def text_digest(row: Mapping[str, Any], salt: bytes) -> str:
    """HMAC-SHA256 of a row's texts, 64 hex digits.

    Without the salt nobody can try out texts; with it, who holds the row can show that it is the one.
    """
    return hmac.new(salt, json.dumps(row_texts(row), ensure_ascii=False).encode(), hashlib.sha256).hexdigest()


def text_digests(rows: Iterable[Mapping[str, Any]], salt: bytes) -> Iterator[str]:
    """`text_digest` of every row, in order."""
    return (text_digest(row, salt) for row in rows)


def _parts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield unicodedata.normalize("NFC", value).strip()
        return
    values = value.tolist() if isinstance(value, np.ndarray) else list(value)
    if values and isinstance(values[0], Mapping):  # chat messages
        for message in values:
            yield from _parts(message.get("content") or "")
        return
    yield json.dumps(values)  # token ids
