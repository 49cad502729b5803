"""Names as the Hub writes them: repositories, licences, languages; checked offline."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from ...errors import input_error

# As the Hub writes the keys of licences and languages.
LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]*")
LANGUAGE = re.compile(r"[a-z]{2,3}|code|multilingual")


def require_metadata(license: str | None, languages: Sequence[str] | None, datasets: Sequence[str] | None) -> None:
    """Raise for what the Hub would refuse a card for: a licence, a language or a dataset that is no key of its."""
    for name, values, accepts, example in (
        ("license", [license] if license else [], LICENSE.fullmatch, "apache-2.0"),
        ("language", languages or [], LANGUAGE.fullmatch, "en"),
        ("datasets", datasets or [], is_repository, "owner/name"),
    ):
        refused = [value for value in values if not accepts(value)]
        if refused:
            raise input_error(
                expected=f"{name} as the Hub writes it, for example {example}",
                got=repr(refused[0]),
                why="the Hub refuses a card with another value, and with it the push",
                fix="correct it, or leave it out",
            )


def is_repository(name: Any) -> bool:
    """Whether a name can be a repository of the Hub, and is no folder here."""
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return not Path(name).exists()
