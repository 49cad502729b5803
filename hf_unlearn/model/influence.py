"""How much of the forget set's gradient each retain row shares (TracIn)."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import datasets
import numpy as np
import torch
from peft import LoraConfig, LoraModel, PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from ..data.tokenization import RowSet, TokenizedSet, tokenize_rows
from ..data.tokenized_row import EncodedRow, target_count
from ..errors import input_error, require_choice, require_range
from .gradients import inner_product, norm
from .row_gradients import eval_mode_with_grad, row_gradients, token_rows

_KINDS = ("cosine", "dot")
_ADAPTER = "influence"


def influence_scores(
    model: Any,
    tokenizer: PreTrainedTokenizerBase | None,
    forget: RowSet,
    retain: RowSet,
    *,
    template: str | None = None,
    chat_template_kwargs: Mapping[str, Any] | None = None,
    max_length: int | None = None,
    rank: int = 32,
    kind: Literal["cosine", "dot"] = "cosine",
    seed: int = 0,
) -> np.ndarray:
    """How much of the forget set's gradient each retain row shares: <g_i, g_f>, or its cosine, [N].

    g_i: gradient of retain row i's nll (mean over its answer tokens). g_f: gradient of the forget set's NLL, the mean
    over all answer tokens of the set, as training reduces it. To first order, a step of ascent theta + eta g_f raises
    the nll of row i by eta <g_i, g_f>: rows with high scores are the ones that forgetting harms.

    The gradients are those of a PeftModel's trainable parameters. For any other model they are those of a LoRA of
    `rank` on all linear layers, put on for the call: W + B A with B = 0 and A ~ N(0, 1/rank), where d/dB = (d/dW) A^T,
    so <g_i, g_f> is an unbiased estimate of that over the weights of these layers. The model is left as it was, with
    dropout off in between; one row at a time. NaN is shown, not filtered: a row without a gradient has no cosine.

    Args:
        model: a causal language model, not wrapped for distributed training.
        tokenizer: None for rows that are tokenised already.
        forget, retain: rows in any accepted format, with a length.
        template, chat_template_kwargs, max_length: as in training.
        rank: of the temporary LoRA; more is less noise from the draw of A. Not used with a PeftModel.
        kind: "cosine" in [-1, 1], or "dot".
        seed: of A.

    Raises:
        ValueError: rows, tokenizer or model that do not fit, adapters without a trainable weight, or another `kind`.

    Source: Pruthi et al. 2002.08484 (TracIn), at one checkpoint and with a random projection.
    """
    require_choice("kind", kind, _KINDS)
    require_range("rank", rank, at_least=1, whole=True)
    options: dict[str, Any] = dict(template=template, chat_template_kwargs=chat_template_kwargs, max_length=max_length)
    rows = {}
    for set_name, given in (("forget", forget), ("retain", retain)):
        tokenized = tokenize_rows(given, tokenizer, set_name=set_name, **options)
        _require_length(tokenized, set_name, given)
        rows[set_name] = token_rows(model, tokenized, f"the {set_name} set")
    with eval_mode_with_grad(model), _adapter(model, rank, seed) as parameters:
        target = _set_gradient(model, rows["forget"], parameters)
        length = float(norm(target))

        def score(gradient: list[Tensor]) -> float:
            size = float(norm(gradient)) * length if kind == "cosine" else 1.0
            return float(inner_product(gradient, target)) / size if size != 0 else float("nan")

        gradients = row_gradients(model, rows["retain"], parameters, "gradients of the retain set")
        return np.array(list(map(score, gradients)))


def _require_length(tokenized: TokenizedSet, set_name: str, given: RowSet) -> None:
    if not isinstance(tokenized, datasets.Dataset):
        raise input_error(
            expected=f"the {set_name} rows as a set with a length",
            got=f"a {type(given).__name__}",
            why="every row gets a score of its own",
            fix="datasets.Dataset.from_list(list(stream))",
        )


def _set_gradient(model: Any, rows: list[EncodedRow], parameters: list[nn.Parameter]) -> list[Tensor]:
    """The gradient of the mean over all answer tokens of a set, in fp32 at least."""
    total = sum(target_count(row.labels) for row in rows)
    sums = [torch.zeros_like(p, dtype=torch.promote_types(p.dtype, torch.float32)) for p in parameters]
    gradients = row_gradients(model, rows, parameters, "gradients of the forget set")

    def add(row: EncodedRow, gradient: list[Tensor]) -> None:
        for whole, part in zip(sums, gradient, strict=True):
            whole.add_(part, alpha=target_count(row.labels) / total)

    for _ in map(add, rows, gradients):  # not a loop over `gradients`: its variable would keep one of them alive
        pass
    return sums


@contextlib.contextmanager
def _adapter(model: Any, rank: int, seed: int) -> Iterator[list[nn.Parameter]]:
    """The parameters whose gradients are compared: the model's own adapter, or a LoRA that is there for the moment."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    if isinstance(model, PeftModel) and trainable:
        yield trainable
        return
    if any(isinstance(module, BaseTunerLayer) for module in model.modules()):
        raise input_error(
            expected="a plain model, or a PeftModel with a trainable adapter",
            got=f"a {type(model).__name__} with adapters" + ("" if trainable else ", none of them trainable"),
            why="gradients are those of the adapter that is to be trained",
            fix="PeftModel.from_pretrained(..., is_trainable=True), or hf_unlearn.model.merging.merge(model)",
        )
    # peft draws A from the global generator; here it is drawn again from one of our own.
    with torch.random.fork_rng(devices=[model.device] if model.device.type == "cuda" else []):
        config = LoraConfig(r=rank, lora_alpha=rank, target_modules="all-linear")
        tuner = LoraModel(model, config, _ADAPTER)
    try:
        yield _drawn(model, rank, torch.Generator().manual_seed(seed))
    finally:
        tuner.unload()


def _drawn(model: nn.Module, rank: int, generator: torch.Generator) -> list[nn.Parameter]:
    """Sets every A to a draw, and gives every B. The gradient of A is zero while B is, so nobody asks for it."""
    projections = []
    for name, parameter in model.named_parameters():
        # At least fp32, whatever the model's type: gradients are compared, and 16 bits of them are few.
        dtype = torch.promote_types(parameter.dtype, torch.float32)
        if f".lora_A.{_ADAPTER}." in name:
            drawn = torch.randn(parameter.shape, generator=generator) * rank**-0.5
            parameter.data = drawn.to(parameter.device, dtype)
            parameter.requires_grad_(False)
        elif f".lora_B.{_ADAPTER}." in name:
            parameter.data = parameter.data.to(dtype)
            parameter.requires_grad_()
            projections.append(parameter)
    return projections
