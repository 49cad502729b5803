"""suppress(): fits a suppression, puts it on a model, and reports what the model answers with it and without."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn
from transformers import PreTrainedTokenizerBase

from ..edits import EditData
from ..edits.inputs import edit_data, require_doable
from ..edits.tokens_read import TokensRead
from ..errors import input_error
from ..evaluation.checks import require_fit
from ..model.fingerprints import hash_weights
from ..model.score_rows import preserve_rng_state
from ..model.sharding import is_sharded
from ..model.suppressed_forward import suppression_identity
from ..results.edit_report import MeanNll
from ..results.suppression_report import SuppressionReport
from ..training.hooks.run_description import describe_component
from ..training.method_specs import components_of
from .base import Installed, Suppression, Suppressor

_SPILL = 0.5  # nats per token by which kept rows may become less likely without a word


@dataclass(frozen=True)
class Suppressed(SuppressionReport):
    """The report of a suppression, with what came of it.

    Attributes:
        suppressor: fitted; `save(folder)`, `install(other)`, `logits_processor()`.
        handle: `remove()` takes it off the model.
    """

    suppressor: Suppressor = field(default=None, repr=False, compare=False)  # type: ignore[assignment]
    handle: Installed = field(default=None, repr=False, compare=False)  # type: ignore[assignment]


def suppress(
    suppression: Any,
    model: Any,
    data: Mapping[str, Any],
    *,
    tokenizer: PreTrainedTokenizerBase,
    level: float | str | None = None,
    batch_size: int = 32,
    seed: int = 0,
    template: str | None = None,
    max_length: int | None = None,
    chat_template_kwargs: Mapping[str, Any] | None = None,
    accelerator: Accelerator | None = None,
) -> Suppressed:
    """Suppress answers of a model at inference. No weight changes: whoever has the weights has the rows.

    The model answers through the suppressor from then on, wherever it is called: `evaluate`, `attack`, `generate`.
    Of the holdout rows the half is read that levels are calibrated on (`calibration_rows`). Random states are left as
    they are, and a suppression that fails leaves the model without one.

    Args:
        suppression: a `Suppression`, its name, or a mapping with its `name` and arguments; also as JSON.
        model: whole, on the accelerator's device; with an adapter or without.
        data: rows in any accepted format by role: `forget`, and `retain` and `holdout` where they are read.
        tokenizer: of the model, with a padding and an end-of-text token.
        level: mean NLL per token that a suppression with `to_level` is to bring the forget rows to, nats; "ngram" or
            "holdout" for the mean of those levels, as in `hf_unlearn.edits.apply`; None for what the sets allow.
        batch_size: rows of a forward.
        seed: of everything that is drawn.
        template, max_length, chat_template_kwargs: how rows become tokens, as in UnlearningConfig.
        accelerator: of the run; a new one if None.

    Raises:
        ValueError: an unknown suppression, a set that it needs and that is not there, rows in two sets, or a model
            that is split over ranks, quantised or suppressed already.
    """
    from . import SUPPRESSIONS

    (suppression,) = components_of(suppression, SUPPRESSIONS, Suppression, "suppression")
    accelerator = accelerator or Accelerator()
    require_suppressible(model)
    require_fit(model, tokenizer, accelerator)
    work = edit_data(
        suppression,
        model,
        data,
        tokenizer,
        kind="suppression",
        level=level,
        batch_size=batch_size,
        seed=seed,
        template=template,
        max_length=max_length,
        chat_template_kwargs=chat_template_kwargs,
    )
    return _fitted(suppression, model, work)


def require_suppressible(model: Any) -> None:
    """Raise for what is no model, is split over ranks, quantised, or suppressed already.

    Args:
        model: whose answers are to be suppressed.
    """
    if not isinstance(model, nn.Module):
        got, fix = f"a {type(model).__name__}", "AutoModelForCausalLM.from_pretrained(...)"
    elif is_sharded(model):
        got, fix = "parameters that are split over ranks (ZeRO-3 or FSDP)", "fit it in one process, or under DDP"
    elif getattr(model, "is_quantized", False):
        got, fix = "quantised weights", "fit it to the model in floating point, and install it on the quantised one"
    elif suppression_identity(model) is not None:
        got, fix = "a model whose answers are suppressed already", "hf_unlearn.suppression.remove_suppression(model)"
    else:
        return
    raise input_error(
        expected="a causal language model that this process holds whole, in floating-point weights, not suppressed",
        got=got,
        why="the suppression is fitted to its weights and their answers",
        fix=fix,
    )


def _fitted(suppression: Suppression, model: Any, data: EditData) -> Suppressed:
    """Fit a suppression to a model that was checked, and install it."""
    read, inner = TokensRead(), getattr(model, "get_base_model", lambda: model)()
    with preserve_rng_state(), read.counted(model):
        torch.manual_seed(data.seed)
        require_doable(suppression, "suppression", inner, data)
        without, alone = _levels(model, data)
        clock, cpu = time.perf_counter(), time.process_time()
        suppressor = suppression.build(inner, data)
        seconds, cpu_seconds = time.perf_counter() - clock, time.process_time() - cpu
        handle, whole = suppressor.install(model), False
        try:
            suppressed, together = _levels(model, data)
            whole = True
        finally:
            if not whole:
                handle.remove()
    return Suppressed(
        suppression=describe_component(suppression),
        without=without,
        suppressed=suppressed,
        fitted={name: part for name, part in suppressor.parts.items() if isinstance(part, int | float | str)},
        level=data.level,
        restores=suppression.restores,
        holds=suppressor.holds,
        rows={name: len(rows) for name, rows in data.given.items()},
        tokens=read.tokens,
        seconds=seconds,
        cpu_seconds=cpu_seconds,
        slower=together / alone,
        weights=hash_weights(model),
        identity=suppressor.identity,
        seed=data.seed,
        warnings=_warnings(suppressor, without, suppressed),
        suppressor=suppressor,
        handle=handle,
    )


def _levels(model: Any, data: EditData) -> tuple[MeanNll, float]:
    """MeanNll of the sets, and the seconds that the forget rows took."""
    data.questioner.nll(model, data.forget[:1])  # a model is probed when it is first called
    started = time.perf_counter()
    forget = float(data.questioner.nll(model, data.forget).mean())
    seconds = time.perf_counter() - started
    others = (data.retain, data.unseen)
    retain, unseen = (float(data.questioner.nll(model, rows).mean()) if len(rows) else None for rows in others)
    return MeanNll(forget, retain, unseen), seconds


def _warnings(suppressor: Suppressor, without: MeanNll, suppressed: MeanNll) -> list[str]:
    warnings = [suppressor.holds] if suppressor.holds else []
    if not suppressed.forget > without.forget + _SPILL:
        warnings.append("The forget rows are about as likely as without it.")
    for name in ("retain", "unseen"):
        before, after = getattr(without, name), getattr(suppressed, name)
        if before is not None and abs(after - before) > _SPILL:
            way = "less" if after > before else "more"
            warnings.append(f"The {name} rows have become {way} likely by {abs(after - before):.2f} nats per token.")
    return warnings
