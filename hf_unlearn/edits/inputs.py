"""What an edit or a suppression is given: its rows, tokenised and checked, the level, the loader of a checkpoint."""

import copy
from collections.abc import Callable, Mapping
from typing import Any

from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from ..data.digests import shared_rows
from ..data.holdout_split import calibration_rows
from ..data.prepare import RowOptions
from ..data.tokenized_row import TokenizedRow
from ..errors import input_error, require_choice, require_range
from ..evaluation.checks import require_room
from ..evaluation.questioner import Questioner
from ..model.loading import loading
from .base import EditData
from .level import known_level

SETS = ("forget", "retain", "holdout")


def edit_data(
    component: Any,
    model: Any,
    data: Any,
    tokenizer: PreTrainedTokenizerBase,
    *,
    kind: str = "edit",
    level: float | str | None = None,
    before: PreTrainedModel | None = None,
    checkpoint: Any = None,
    judge: Any = None,
    batch_size: int,
    seed: int,
    template: str | None,
    max_length: int | None,
    chat_template_kwargs: Mapping[str, Any] | None,
) -> EditData:
    """All that an edit or a suppression has beside the model, from the arguments of `apply` or `suppress`; checked.

    Args:
        component: the edit, or the suppression.
        model: that it is to be done to.
        data: rows by role.
        tokenizer: of the model.
        kind: what the component is, in errors.
    """
    require_range("batch_size", batch_size, at_least=1, whole=True)
    options = RowOptions(tokenizer, max_length, template, None, chat_template_kwargs=chat_template_kwargs)
    given, rows = _sets(component, data, options, model, kind)
    questioner = Questioner(tokenizer, options.answer_ends(given["forget"], rows["forget"]), batch_size, seed)
    forget, retain, unseen = (rows.get(name, []) for name in SETS)
    aim = known_level(level, model if before is None else before, questioner, forget, retain, unseen)
    loader = _checkpoint_loader(checkpoint, model)
    return EditData(questioner, forget, retain, unseen, given, aim, before, loader, judge)


def require_doable(component: Any, kind: str, model: Any, data: EditData) -> None:
    """Raise where an edit or a suppression says that it cannot be done to a model."""
    why = component.unfit(model, data)
    if why is not None:
        raise input_error(
            expected=f"a model and rows that the {kind} {component.name} can be done with",
            got=f"that {why}",
            why="what it is to change would not become what it is to be",
            fix=f"change what is named, or take another {kind}; `hf-unlearn methods` lists them",
        )


def _sets(
    edit: Any, data: Any, options: RowOptions, model: Any, kind: str
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


def _checkpoint_loader(checkpoint: Any, model: Any) -> Callable[[], PreTrainedModel] | None:
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
