"""A ledger opened with the base arguments of its runs, and requests added to it."""

import calendar
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

from ...data.formats import RowFormat, detect_format
from ...data.sources import load_rows
from ...errors import input_error, value_error
from ...lab import load_lab
from ...model.weight_files import loaded_file_hashes
from ...requests import Ledger, Request
from ...requests.ledger import LEDGER_FILE
from ...requests.rows_store import RowsStore
from ...requests.state import ADDED
from ...results.gate import read_policy
from ...results.lineage import file_hash
from .. import parse_task
from ..arguments import Parsed
from ..command_file import COMMAND_FILE, write_command
from ..flag_words import underscored
from ..task import require_model

TASK, POLICY = "deletion", "standard"
_MODEL = "--model_name_or_path"
# Of a batch, which the ledger names for each of its runs.
_OF_A_BATCH = ("forget_dataset", "ledger", "requests", "held", "output_dir", "resume_from_checkpoint", "row_cache_dir")


def open_ledger(folder: str | os.PathLike[str], words: Sequence[str], policy: str = POLICY) -> Ledger:
    """Make a ledger whose runs have these arguments in common: model, rows to keep, unseen rows, recipe.

    Args:
        folder: of the ledger.
        words: of `hf-unlearn train --task deletion`, without the rows to forget; none for the lab's people.
        policy: by which requests are judged that name none.

    Raises:
        ValueError: arguments that a batch sets itself, a model without rows to keep, or what cannot be loaded.
    """
    place = Path(folder)
    given = {word.removeprefix("--").partition("=")[0] for word in underscored(words) if word[:2] == "--"}
    for name in _OF_A_BATCH:
        if name in given:
            raise value_error(f"--{name}", "left out when a ledger is opened", "given", "each batch sets it")
    read_policy(policy)
    parsed = parse_task(TASK, [*words, "--output_dir", str(place)])
    model = _require_base(parsed)
    place.mkdir(parents=True, exist_ok=True)
    if not (place / LEDGER_FILE).is_file():  # else `create` refuses, and the settings of the other one stay
        write_command(TASK, _yielding(parsed), place)
    settings = file_hash(place / COMMAND_FILE)
    return Ledger.create(place, {"task": TASK, "policy": policy, "model": model, "settings": settings})


def _yielding(parsed: Parsed) -> Parsed:
    """The arguments with the model among those of the recipe, where it yields to the run that a batch goes on from."""
    name = parsed.model.model_name_or_path
    if name is None:
        return parsed
    words, given = [], iter(parsed.words)
    for word in given:
        if word == _MODEL:
            next(given)
        elif not word.startswith(f"{_MODEL}="):
            words.append(word)
    return replace(parsed, words=words, recipe_values=parsed.recipe_values | {"model_name_or_path": name})


def _require_base(parsed: Parsed) -> dict[str, str]:
    """The hashes of the model's weight files; raises where model or rows to keep are missing or cannot be read."""
    name, script = parsed.model.model_name_or_path, parsed.script
    kept = script.retain_dataset or script.retain_prompts
    if name is None and kept is None:
        return loaded_file_hashes(str(load_lab(world="people").model_path))
    if name is None or kept is None:
        raise input_error(
            expected="--model_name_or_path together with --retain_dataset",
            got="no model" if name is None else "no rows to keep",
            why="every batch of the ledger starts from the one and is held by the other",
            fix="name both, or neither to try it on the lab",
        )
    require_model(name)
    for source, columns in ((kept, script.retain_columns), (script.holdout_dataset, script.holdout_columns)):
        if source is not None and Path(source).exists():
            load_rows(source, columns=columns or (script.forget_columns if source == script.holdout_dataset else None))
    return loaded_file_hashes(name, revision=parsed.model.model_revision)


def add_request(
    ledger: Ledger,
    rows: str | os.PathLike[str],
    *,
    request_id: str | None = None,
    received: str | None = None,
    due: str | None = None,
    scope: str = "",
    reference: str = "",
    policy: str | None = None,
    columns: Mapping[str, str] | None = None,
    split: str = "train",
    encrypt: bool = False,
) -> Request:
    """Enter a request.

    Args:
        ledger: that keeps it.
        rows: file, saved folder or Hub id of the rows that are to be deleted.
        request_id: None for the next number, "R-1", "R-2", ...
        received: date, ISO 8601; None for today (UTC).
        due: date; None for a month after `received`, as in article 12(3) of the GDPR.
        scope: what is to be deleted, in words.
        reference: the requester's, such as the number of a letter.
        policy: by which it is judged; None for the ledger's.
        columns: old column name -> new.
        split: of a saved DatasetDict or a Hub dataset.
        encrypt: keep the rows themselves in the ledger, encrypted, in place of where they lie.

    Raises:
        ValueError: an id that is there, dates that are none, an unknown policy, rows that cannot be had or that are
            of another format than those of the other requests.
    """
    with ledger.locked():
        state = ledger.state()
        name = request_id or _next_id(state.requests)
        if name in state.requests:
            raise value_error(
                "--id", "one that no other request has", name, f"the next one is {_next_id(state.requests)}"
            )
        asked = {"scope": scope, "reference": reference, **_dates(received, due)}
        asked["policy"] = policy or state.opened.get("policy", POLICY)
        read_policy(asked["policy"])
        loaded = load_rows(str(rows), columns=columns, split=split)
        kept = [known.id for known in state.requests.values() if known.rows_kept]
        _require_format(ledger, kept[:1], detect_format(loaded.column_names, "forget", "columns"))
        digests = RowsStore(ledger).put(name, rows, columns, split, encrypt)
        ledger.append(ADDED, {"request": name, "rows": len(digests), "digests": digests, **asked})
        return ledger.state().requests[name]


def _dates(received: str | None, due: str | None) -> dict[str, str]:
    came = _day("--received", received) if received else datetime.now(UTC).date()
    until = _day("--due", due) if due else month_after(came)
    if until < came:
        raise value_error("--due", f"not before the day it was received, {came}", str(until))
    return {"received": came.isoformat(), "due": until.isoformat()}


def _require_format(ledger: Ledger, others: list[str], row_format: RowFormat) -> None:
    """Raise for rows of another format than those of other requests."""
    for other in others:
        if detect_format(RowsStore(ledger).rows(other).column_names, "forget") != row_format:
            raise input_error(
                expected=f"rows in the format of request {other}",
                got=f"{row_format.value} rows",
                why="requests are forgotten together and held together later",
                fix="bring them into that format, or rename columns with --columns",
            )


def month_after(day: date) -> date:
    """The same day of the next month, or its last day where it has fewer."""
    year, month = (day.year + 1, 1) if day.month == 12 else (day.year, day.month + 1)
    return date(year, month, min(day.day, calendar.monthrange(year, month)[1]))


def _next_id(known: Mapping[str, Request]) -> str:
    number = len(known) + 1
    while f"R-{number}" in known:
        number += 1
    return f"R-{number}"


def _day(name: str, text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise value_error(name, "a date as 2026-11-29", text) from None
