"""Carries out an edit on a model that was checked: measured before and after, undone where it fails."""

import copy
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel

from ..errors import input_error
from ..model.fingerprints import hash_weights
from ..model.merging import merge
from ..model.row_gradients import eval_mode_with_grad
from ..model.score_rows import preserve_rng_state
from ..results.edit_report import EditReport, MeanNll
from ..training.hooks.run_description import describe_component
from .base import Edit, EditData
from .inputs import require_doable
from .moved import copied_weights, moved_weights, restore_weights
from .tokens_read import TokensRead


@dataclass(frozen=True)
class AppliedEdit(EditReport):
    """The report of an edit, with the model that came of it.

    Attributes:
        model: edited; the same object as was given, or what an adapter was merged into.
    """

    model: Any = field(default=None, repr=False, compare=False)


def carry_out(edit: Edit, model: Any, data: EditData) -> AppliedEdit:
    """Edit a model that was checked, and measure it before and after."""
    merged = isinstance(model, PeftModel)
    model = merge(model) if merged else model
    clock, cpu, read = time.perf_counter(), time.process_time(), TokensRead()
    with _restored_on_error(model) as weights, preserve_rng_state(), _trainable(model), read.counted(model):
        torch.manual_seed(data.seed)
        data = _supplied(edit, model, data, read)
        _require_fit_edit(edit, model, data)
        start, hashed = _levels(model, data), hash_weights(model)
        tried = edit.run(model, data)
        _require_finite(edit, model)
        end, moved = _levels(model, data), moved_weights(model, weights)
    return AppliedEdit(
        edit=describe_component(edit),
        before=start,
        after=end,
        tried=list(tried),
        moved=moved,
        level=data.level,
        rows={name: len(rows) for name, rows in data.given.items()},
        tokens=read.tokens,
        seconds=time.perf_counter() - clock,
        cpu_seconds=time.process_time() - cpu,
        merged=merged,
        weights_before=hashed,
        weights_after=hash_weights(model),
        seed=data.seed,
        warnings=_warnings(data, start, end) + edit.warnings(data),
        model=model,
    )


@contextmanager
def _restored_on_error(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """A copy of the weights; they are put back where something goes wrong inside."""
    weights, whole = copied_weights(model), False
    try:
        yield weights
        whole = True
    finally:
        if not whole:
            restore_weights(model, weights)


@contextmanager
def _trainable(model: nn.Module) -> Iterator[None]:
    """In evaluation mode, gradients on for all weights; modes and `requires_grad` are as before afterwards."""
    with eval_mode_with_grad(model):
        for weight in model.parameters():
            weight.requires_grad_(weight.is_floating_point())
        yield
    model.zero_grad(set_to_none=True)


def _supplied(edit: Edit, model: Any, data: EditData, read: TokensRead) -> EditData:
    """The data, with the model before where the edit needs it, and with the tokens of a checkpoint counted."""
    load = data.checkpoint

    def counted_checkpoint() -> PreTrainedModel:
        assert load is not None
        loaded = load()
        read.count(loaded)
        return loaded

    before = data.before
    if edit.needs_before and before is None:
        before = copy.deepcopy(model).requires_grad_(False).eval()
    return replace(data, before=before, checkpoint=None if load is None else counted_checkpoint)


def _require_fit_edit(edit: Edit, model: Any, data: EditData) -> None:
    if edit.needs_checkpoint and data.checkpoint is None:
        raise input_error(
            expected=f"checkpoint, for the edit {edit.name}",
            got="none",
            why="it starts from a model that had not learnt the forget rows yet",
            fix="name a checkpoint from before they were learnt, or the public model that was fine-tuned",
        )
    require_doable(edit, "edit", model, data)


def _require_finite(edit: Edit, model: nn.Module) -> None:
    for name, weight in model.named_parameters():
        if not bool(torch.isfinite(weight.detach()).all()):
            raise input_error(
                expected=f"finite weights after the edit {edit.name}",
                got=f"NaN or infinity in {name}",
                why="the model would answer nothing; it has the weights that it had before the edit",
                fix="take smaller rates or scales",
            )


def _levels(model: Any, data: EditData) -> MeanNll:
    sets = (data.forget, data.retain, data.unseen)
    forget, retain, unseen = (float(data.questioner.nll(model, rows).mean()) if len(rows) else None for rows in sets)
    assert forget is not None
    return MeanNll(forget, retain, unseen)


def _warnings(data: EditData, start: MeanNll, end: MeanNll) -> list[str]:
    """What a reader must know: little was forgotten, or much was lost beside it."""
    warnings = []
    if data.level is not None and end.forget < start.forget + 0.5 * (data.level - start.forget):
        warnings.append(
            f"The forget rows are at {end.forget:.2f} nats per token, nearer to where they were ({start.forget:.2f}) "
            f"than to the level of rows never seen ({data.level:.2f})."
        )
    if start.retain is not None and end.retain is not None and end.retain > start.retain + 0.5:
        warnings.append(
            f"The retain rows went from {start.retain:.2f} to {end.retain:.2f} nats per token: what was to be kept "
            "was lost with it."
        )
    return warnings
