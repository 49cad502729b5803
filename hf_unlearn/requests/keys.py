"""The key of a ledger's encrypted rows: from the environment, never from the ledger's folder."""

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import input_error

if TYPE_CHECKING:
    from cryptography.fernet import Fernet

KEY, KEY_FILE = "HF_UNLEARN_LEDGER_KEY", "HF_UNLEARN_LEDGER_KEY_FILE"


def new_key() -> str:
    """32 random bytes, as Fernet writes them."""
    return _fernet_class().generate_key().decode()


def ledger_key(folder: Path) -> str:
    """The key that the environment names.

    Args:
        folder: of the ledger, in which no key file may lie.

    Raises:
        ValueError: none is named, two are, or the file cannot be read or lies with what it locks.
    """
    key, named = os.environ.get(KEY, "").strip(), os.environ.get(KEY_FILE, "").strip()
    if bool(key) == bool(named):
        raise _no_key("two of them: both are set" if key else "none: neither is set")
    if key:
        return key
    file = Path(named).expanduser().resolve()
    if folder.resolve() in file.parents:
        raise _no_key(f"{KEY_FILE} that lies in the ledger's own folder, where it would lock nothing")
    try:
        return file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeError) as error:
        raise _no_key(f"{KEY_FILE} that cannot be read ({type(error).__name__})") from None


def key_id(key: str) -> str:
    """Tells one key from another and says nothing about it."""
    return hashlib.sha256(f"hf_unlearn ledger key {key}".encode()).hexdigest()[:16]


def fernet_of(key: str) -> "Fernet":
    """What encrypts and decrypts with a key.

    Raises:
        ValueError: it is no key of Fernet's, or the library is missing.
    """
    fernet = _fernet_class()
    try:
        return fernet(key)
    except ValueError:
        raise _no_key(f"a text of {len(key)} characters that is no such key") from None


def _fernet_class() -> type["Fernet"]:
    try:
        from cryptography.fernet import Fernet
    except ImportError:
        raise input_error(
            expected="the library cryptography, which encrypts rows",
            got="an environment without it",
            why="rows are never kept unencrypted",
            fix="pip install 'hf-unlearn[requests]', or keep only the place of the rows, without encryption",
        ) from None
    return Fernet


def _no_key(got: str) -> ValueError:
    return input_error(
        expected=f"a key of 44 characters in {KEY}, or in a file that {KEY_FILE} names, one of the two",
        got=got,
        why="the rows of the ledger are encrypted with it, and it is never kept beside them",
        fix='make one with: python -c "from hf_unlearn.requests import RowsStore; print(RowsStore.new_key())" '
        "and keep it safe: without it nobody can read the rows again",
    )
