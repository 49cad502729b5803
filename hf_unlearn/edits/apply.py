"""apply(): does an edit to a model, and reports what moved and what it took."""

from collections.abc import Mapping
from typing import Any

from accelerate import Accelerator
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..errors import input_error
from ..evaluation.checks import require_fit
from ..model.sharding import is_sharded
from ..model.suppressed_forward import suppression_identity
from ..training.method_specs import components_of
from .base import Edit
from .carry_out import AppliedEdit, carry_out
from .inputs import edit_data


def apply(
    edit: Any,
    model: Any,
    data: Mapping[str, Any],
    *,
    tokenizer: PreTrainedTokenizerBase,
    level: float | str | None = None,
    checkpoint: str | PreTrainedModel | None = None,
    before: PreTrainedModel | None = None,
    judge: Any = None,
    batch_size: int = 32,
    seed: int = 0,
    template: str | None = None,
    max_length: int | None = None,
    chat_template_kwargs: Mapping[str, Any] | None = None,
    accelerator: Accelerator | None = None,
) -> AppliedEdit:
    """Edit the weights of a model in place.

    An adapter is merged first; the merged model is `report.model`. Of the holdout rows the half is read that levels
    are calibrated on (`calibration_rows`). Random states are left as they are, and a failed edit leaves the weights.

    Args:
        edit: an `Edit`, its name, or a mapping with its `name` and arguments; also as JSON.
        model: whole, on the accelerator's device.
        data: rows in any accepted format by role: `forget`, and `retain` and `holdout` where the edit reads them.
        tokenizer: of the model, with a padding and an end-of-text token.
        level: mean NLL per token to bring the forget rows to, nats; "ngram" or "holdout" for the mean of the levels of
            that source; None for "ngram" where there are holdout and retain rows, else "holdout".
        checkpoint: folder, id or model from before the forget rows were learnt, for edits that start from one.
        before: the model before unlearning, where `model` is not that any more (after another edit, or training).
        judge: of generated answers; None for overlap with the row's own answer.
        batch_size, seed: rows of a forward; seed of everything that is drawn.
        template, max_length, chat_template_kwargs: how rows become tokens, as in UnlearningConfig.
        accelerator: of the run; a new one if None.

    Raises:
        ValueError: an unknown edit, a set or a model that it needs and that is not there, rows in two sets, a model
            that is split over ranks or quantised, or weights that were not finite after the edit.
    """
    from . import EDITS

    (edit,) = components_of(edit, EDITS, Edit, "edit")
    accelerator = accelerator or Accelerator()
    require_editable(model)
    require_fit(model, tokenizer, accelerator)
    work = edit_data(
        *(edit, model, data, tokenizer),
        level=level,
        before=before,
        checkpoint=checkpoint,
        judge=judge,
        batch_size=batch_size,
        seed=seed,
        template=template,
        max_length=max_length,
        chat_template_kwargs=chat_template_kwargs,
    )
    return carry_out(edit, model, work)


def require_editable(model: Any) -> None:
    """Raise for what is no model, is split over ranks, or has weights that cannot be written.

    Args:
        model: that an edit is to be done to.
    """
    if not isinstance(model, nn.Module):
        got, fix = f"a {type(model).__name__}", "AutoModelForCausalLM.from_pretrained(...)"
    elif is_sharded(model):
        got, fix = "parameters that are split over ranks (ZeRO-3 or FSDP)", "edit in one process, or under DDP"
    elif getattr(model, "is_quantized", False):
        got, fix = "quantised weights", "load it without quantization_config"
    elif suppression_identity(model) is not None:
        got, fix = "one whose answers are suppressed at inference", "hf_unlearn.suppression.remove_suppression(model)"
    else:
        return
    raise input_error(
        expected="a causal language model that every rank holds whole, in floating-point weights",
        got=got,
        why="an edit reads and writes whole weights",
        fix=fix,
    )
