"""Paths of a machine and tokens, taken out of the texts of a record before it is published.

A record is to hold neither (`run_description` leaves them out); this is the second lock, for what a user or a callback
put into it.
"""

import dataclasses
import numbers
import re
from collections.abc import Mapping
from typing import Any, TypeVar

_PATH_WORDS, _TOKEN_WORDS = "(a local path)", "(a token)"
_PART = r"[\w.@+%=~-]+"
_FOLDERS = "home|root|Users|mnt|tmp|srv|private|workspace|scratch"  # of a machine, paths wherever they stand
_PATH = re.compile(
    rf"file://\S*"
    rf"|(?P<url>\b[A-Za-z][A-Za-z0-9+.-]+://[^\s,;\"'<>)\]}}]*)"  # stays, whatever stands in it
    rf"|^/{_PART}/?$"  # one folder is a path where nothing else stands beside it, and else a division
    rf"|(?<![\w/.)\]}}>*|])(?:/{_PART}){{2,}}/?"
    rf"|(?<![\w/.])/(?:{_FOLDERS})(?:/{_PART})+/?"
    rf"|(?<![\w/.)\]}}>*|])/(?:{_FOLDERS})\b/?"
    rf"|(?<![\w/])~(?:/{_PART})+/?"
    rf"|(?<![\w/.)\]}}~\\])~[A-Za-z_][\w-]*(?:/{_PART})+/?"  # the folder of another user
    rf"|(?<![\w/.])\.{{1,2}}(?:/{_PART})+/?"
    rf"|\b[A-Za-z]:\\(?![A-Za-z]+[{{_^])[^\s\"'|<>]+"  # a command of LaTeX has an argument or an index
    rf"|\b[A-Za-z]:/(?!/)[^\s\"'|<>]+"
    rf"|(?<![\w\\)\]}}&])\\\\[\w.$-]+\\[\w.$-][^\s\"'|<>]*"
)
_TOKEN = re.compile(r"\b(?:(?:hf|api_org)_[A-Za-z0-9]{20,}|sk-[A-Za-z0-9_-]{20,}|gh[pousr]_[A-Za-z0-9]{30,})")

Value = TypeVar("Value")


def redacted(value: Value) -> Value:
    """The same value with paths and tokens in its texts replaced by words, through mappings, lists and dataclasses.

    Other things become what JSON has for them, so that a record in memory gives the card that its file gives.
    """
    changed: Any = value
    if isinstance(value, str):
        changed = _TOKEN.sub(_TOKEN_WORDS, _PATH.sub(lambda match: match["url"] or _PATH_WORDS, value))
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value)]
        changed = dataclasses.replace(value, **{name: redacted(getattr(value, name)) for name in names})
    elif isinstance(value, Mapping):
        changed = {redacted(name): redacted(inner) for name, inner in value.items()}
    elif isinstance(value, list | tuple):
        changed = [redacted(inner) for inner in value]
    elif isinstance(value, numbers.Real) and not isinstance(value, int):
        # numpy's are numbers too, but look different in code
        changed = int(value) if isinstance(value, numbers.Integral) else float(value)
    elif not isinstance(value, int | None):
        changed = redacted(str(value))
    return changed


def is_redacted(text: str) -> bool:
    """Whether something was taken out of a text."""
    return _PATH_WORDS in text or _TOKEN_WORDS in text
