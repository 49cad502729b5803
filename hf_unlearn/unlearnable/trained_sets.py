"""The digests of the sets that a training reads: of the rows as the user has them, in the order of the set."""

import hashlib
import hmac
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import datasets
from torch import Tensor
from transformers.utils import logging

from ..data.pairing import ForgetRetainDataset
from ..data.text_digests import row_form, text_digest
from ..errors import input_error
from ..results.files import atomic_write_text
from .places import rows_file

logger = logging.get_logger(__name__)

_LOOKED_AT = 16  # rows whose tokens are compared

RawRows = Iterable[Mapping[str, Any]]


@dataclass(frozen=True)
class SetDigests:
    """Of a set.

    Attributes:
        rows: the digest of every row, in order.
        forms: that the rows have.
        tokens: of some of the rows as the training reads them: another tokenizer or template gives another; "" where a
            set is no datasets.Dataset, and may be read in a way of its own.
    """

    rows: tuple[str, ...]
    forms: tuple[str, ...]
    tokens: str = ""


def set_digests(dataset: Any, rows: RawRows | Mapping[str, RawRows] | None, salt: bytes) -> dict[str, SetDigests]:
    """Per role of a training, the digest of every row of its set.

    Args:
        dataset: that the training reads.
        rows: the same rows before they were tokenised, in the same order; for UnlearningTrainer a set per role. None
            takes the rows of the set itself.
        salt: of the digests.

    Raises:
        ValueError: another number of rows; or rows in no format in which they can be known again.
    """
    paired = isinstance(dataset, ForgetRetainDataset)
    own: dict[str, Any] = {"train": dataset}
    if paired:
        named = {"forget": dataset.forget, "retain": dataset.retain, "holdout": dataset.holdout}
        own = {role: value for role, value in named.items() if value is not None}
    given: Mapping[str, Any] = {} if rows is None else rows if isinstance(rows, Mapping) else {"train": rows}
    unknown = [role for role in given if role not in own]
    if unknown:
        raise _refused(f"rows for {', '.join(own)}", f"rows for {', '.join(map(str, given))}", "name the sets as here")
    return {role: _digests(role, value, given.get(role), salt) for role, value in own.items()}


def write_digests(folder: Path, digests: Mapping[str, SetDigests]) -> dict[str, dict[str, Any]]:
    """Write the digests of every set; what the log's first line says of them."""
    sets = {}
    for role, own in digests.items():
        file = atomic_write_text(rows_file(folder, role), "".join(f"{digest}\n" for digest in own.rows))
        sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
        sets[role] = {"rows": len(own.rows), "forms": own.forms, "tokens": own.tokens, "sha256": sha256}
    return sets


def digests_of(rows: RawRows, salt: bytes) -> SetDigests:
    """The digests and forms of rows.

    Raises:
        ValueError: a row has the columns of no known format.
    """
    digests, forms = [], set()
    for row in map(_plain, rows):
        digests.append(text_digest(row, salt))
        forms.add(row_form(row))
    return SetDigests(tuple(digests), tuple(sorted(forms)))


def _digests(role: str, dataset: Any, rows: RawRows | None, salt: bytes) -> SetDigests:
    source = dataset if rows is None else rows
    if isinstance(source, datasets.Dataset):
        source = source.with_format(None)
    read = source if isinstance(source, datasets.Dataset | list | tuple) or rows is not None else _items(source)
    try:
        digests = digests_of(read, salt)
    except ValueError as error:
        raise _refused(
            f"rows of the {role} set in a format in which they can be known again",
            str(error).split("\n")[1].removeprefix("Got: ").rstrip("."),
            "pass rows= with the rows as they were before they were tokenised (prompt and completion, messages, text, "
            "question and answer, prompt with chosen and rejected)",
        ) from None
    if len(digests.rows) != len(dataset):
        raise _refused(
            f"rows= with the {len(dataset)} rows of the {role} set, in its order",
            f"{len(digests.rows)}",
            "pass the rows that the trainer was given; where it leaves out long ones itself, leave them out before",
        )
    if rows is None and "tokens" in digests.forms:
        logger.warning(
            f"The log knows the rows of the {role} set by their tokens, and finds none that is named by its text: "
            "give UnlearnableCallback rows= with the rows as they were before they were tokenised."
        )
    return replace(digests, tokens=_tokens(dataset, salt))


def _tokens(dataset: Any, salt: bytes) -> str:
    if not isinstance(dataset, datasets.Dataset):
        return ""
    places = range(0, len(dataset), max(1, len(dataset) // _LOOKED_AT))
    columns = dataset.with_format(None).select(places).to_dict()
    text = json.dumps(columns, sort_keys=True, default=str)
    return hmac.new(salt, text.encode(), hashlib.sha256).hexdigest()


def _items(dataset: Any) -> Iterable[Any]:
    return (dataset[place] for place in range(len(dataset)))


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value.tolist() if isinstance(value, Tensor) else value for name, value in row.items()}


def _refused(expected: str, got: str, fix: str) -> ValueError:
    return input_error(
        expected=expected, got=got, why="a request names rows as a person has them, not as tokens", fix=fix
    )
