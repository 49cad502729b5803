"""What an edit is given: its rows, tokenised and checked, and the loader of a checkpoint."""

import copy
from collections.abc import Callable, Mapping
from typing import Any

from transformers import AutoModelForCausalLM, PreTrainedModel

from ..data.digests import shared_rows
from ..data.holdout_split import calibration_rows
from ..data.prepare import RowOptions
from ..data.tokenized_row import TokenizedRow
from ..errors import input_error, require_choice
from ..evaluation.checks import require_room
from ..model.loading import loading

SETS = ("forget", "retain", "holdout")


def edit_sets(
    edit: Any, data: Any, options: RowOptions, model: Any, kind: str = "edit"
) -> tuple[dict[str, list[dict[str, Any]]], dict[str, list[TokenizedRow]]]:
    """The sets as they were given and as tokens, of the holdout rows the half that may be fitted to; checked.

    Args:
        edit: an edit, or another component with `reads`.
        data: by role, as `apply` takes them.
        options: how rows become tokens.
        model: that is to read them.
        kind: what the component is, in errors.
    """
    if not isinstance(data, Mapping) or data.get("forget") is None:
        raise input_error(
            expected="data={'forget': ..., 'retain': ..., 'holdout': ...}",
            got=f"a {type(data).__name__}" if not isinstance(data, Mapping) else "no forget rows",
            why="it says what is to be forgotten and what is to be kept",
            fix="put the rows to forget under 'forget' and those to keep under 'retain'",
        )
    for name in data:
        require_choice("a set of rows", name, SETS)
    given = {name: rows for name, rows in data.items() if rows is not None}
    lacking = sorted(edit.reads - given.keys())
    if lacking:
        raise input_error(
            expected=f"data[{lacking[0]!r}], for the {kind} {edit.name}",
            got=f"only {', '.join(given)}",
            why=f"the {kind} is computed from these rows",
            fix=f"pass them, or another {kind} that does without; {edit.name} reads {', '.join(sorted(edit.reads))}",
        )
    if "holdout" in given:
        given["holdout"] = calibration_rows(given["holdout"])
    plain = {name: plain_rows(rows) for name, rows in given.items()}
    tokens = {name: [dict(row) for row in options.tokenize(rows, name)] for name, rows in plain.items()}
    for rows in tokens.values():
        require_room(rows, model)
    for one, other in (("forget", "retain"), ("forget", "holdout"), ("retain", "holdout")):
        shared = shared_rows(tokens.get(one, []), tokens.get(other, []))
        if shared:
            raise input_error(
                expected=f"no row both in the {one} and in the {other} set",
                got=f"{len(shared)} {other} rows that are {one} rows, the first at index {shared[0]}",
                why=f"the {kind} would forget and keep it, or take it for unseen",
                fix=f"remove those rows from the {other} set",
            )
    return plain, tokens


def plain_rows(rows: Any) -> list[dict[str, Any]]:
    return rows.to_list() if hasattr(rows, "to_list") else list(rows)


def checkpoint_loader(checkpoint: Any, model: Any) -> Callable[[], PreTrainedModel] | None:
    """Loads the checkpoint, in the type and on the device of the model; a copy of one that was given in memory."""
    if checkpoint is None:
        return None

    def load() -> PreTrainedModel:
        if isinstance(checkpoint, PreTrainedModel):
            loaded = copy.deepcopy(checkpoint)
        else:
            with loading(checkpoint):
                loaded = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=model.dtype)
        return loaded.to(model.device).requires_grad_(True).eval()

    return load
