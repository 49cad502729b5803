"""Merges an adapter into its base model, tied embeddings included, and checks that the logits stay those it had."""

import warnings
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTuner
from torch import Tensor, nn
from transformers import PreTrainedModel

from ..errors import input_error
from .score_rows import evaluation_mode

_ROWS, _TOKENS = 4, 32  # of the rows that are compared where none are given
# How far merged logits may be off, root mean square: a share of what the adapter changes, and rounding in fp32.
_OF_CHANGE, _OF_LOGITS = 0.01, 1e-4
_SIXTEEN_BITS = (torch.bfloat16, torch.float16)


def merge(model: PeftModel, rows: Sequence[Tensor] | None = None) -> PreTrainedModel:
    """Merge the active adapters into the base model, which takes the model's place (`merge_and_unload`, checked).

    Embeddings that are tied in the base model are untied first where an adapter changes one of them alone: an adapter
    of `lm_head` would otherwise change the input embeddings with it. The merge is computed in fp32, whatever the type
    of the weights, and the merged logits are compared with those of base and adapter before anything is returned.

    Args:
        model: whole on its device; not to be used afterwards.
        rows: token ids of rows to compare on, [tokens] each; None for rows that go through the vocabulary.

    Raises:
        ValueError: the adapter cannot be merged (prompts, for one), or the merged model gives other logits.
    """
    _require_mergeable(model)
    types = {n: weight.dtype for n, weight in model.get_base_model().named_parameters(remove_duplicate=False)}
    for weight in model.parameters():
        if weight.dtype in _SIXTEEN_BITS:
            weight.data = weight.data.float()
    rows = _vocabulary_rows(model) if rows is None else rows
    tied = [config for config in _configs(model.get_base_model()) if getattr(config, "tie_word_embeddings", False)]
    with evaluation_mode(model):
        adapted = _logits(model, rows)
        with model.disable_adapter():
            base = _logits(model, rows)
        _untie_adapted(model)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="(?s).*tie")  # it warns of what is done here
            merged = model.merge_and_unload()
        _settle_ties(merged, tied)
        _require_same_logits(_logits(merged, rows), adapted, base)
    for name, weight in merged.named_parameters():
        # Layers with an adapter had their weights one module deeper.
        owner, _, leaf = name.rpartition(".")
        weight.data = weight.data.to(types.get(name) or types.get(f"{owner}.base_layer.{leaf}") or weight.dtype)
    return merged


def _require_mergeable(model: PeftModel) -> None:
    kinds = sorted({str(model.peft_config[name].peft_type.value) for name in model.active_adapters})
    if not isinstance(model.base_model, BaseTuner):
        raise input_error(
            expected="an adapter of weights, which can be merged into them",
            got=", ".join(kinds),
            why="prompts and added positions have no weight of the base model to go into",
            fix="publish the adapter as it is, or unlearn with LoRA or with all weights",
        )


def _vocabulary_rows(model: PeftModel) -> Sequence[Tensor]:
    """Rows of tokens from the whole vocabulary, and of those that have weights of their own in an adapter."""
    embeddings = model.get_base_model().get_input_embeddings()
    ids = torch.linspace(0, embeddings.weight.shape[0] - 1, _ROWS * _TOKENS).long()
    for config in model.peft_config.values():
        given = getattr(config, "trainable_token_indices", None) or getattr(config, "token_indices", None) or []
        lists = given.values() if isinstance(given, dict) else [given]
        ids = torch.cat([ids, *(torch.tensor(tokens, dtype=torch.long)[:_TOKENS] for tokens in lists)])
    return ids.split(_TOKENS)


def _logits(model: nn.Module, rows: Sequence[Tensor]) -> Tensor:
    """In fp32, a row at a time: [tokens of all rows, V]."""
    device = next(model.parameters()).device
    return torch.cat([model(row[None].to(device)).logits[0].float() for row in rows])


def _untie_adapted(model: PeftModel) -> None:
    """Give each weight that an adapter is merged into, and that others share, a tensor of its own."""
    modules: dict[int, list[tuple[nn.Module, str, str]]] = defaultdict(list)
    for name, module in model.named_modules():
        for leaf, weight in module.named_parameters(recurse=False):
            modules[id(weight)].append((module, leaf, name))
    for places in modules.values():
        if len(places) > 1 and any("base_layer" in name.split(".") for _, _, name in places):
            for module, leaf, _ in places[1:]:
                weight = getattr(module, leaf)
                setattr(module, leaf, nn.Parameter(weight.detach().clone(), requires_grad=weight.requires_grad))


def _settle_ties(merged: PreTrainedModel, tied: list[Any]) -> None:
    """Let the configs that tied the embeddings say what is true now, and tie as loading would where they do."""
    head, embeddings = merged.get_output_embeddings(), merged.get_input_embeddings()
    equal = head is not None and torch.equal(head.weight, embeddings.weight)
    for config in tied:
        config.tie_word_embeddings = equal
    merged.tie_weights()


def _configs(model: PreTrainedModel) -> list[Any]:
    return [model.config, model.config.get_text_config()]


def _require_same_logits(merged: Tensor, adapted: Tensor, base: Tensor) -> None:
    error, change, level = (x.square().mean().sqrt().item() for x in (merged - adapted, adapted - base, adapted))
    if not error <= _OF_CHANGE * change + _OF_LOGITS * level:
        raise input_error(
            expected="a merged model with the logits of base model and adapter",
            got=f"logits that are off by {error:.3g} (root mean square); the adapter changes them by {change:.3g}",
            why="what was measured is true of the adapter, and the merged weights are another model",
            fix="publish the adapter as it is; or unlearn again with an adapter that leaves out layers whose weights "
            "others share (target_modules, modules_to_save)",
        )
