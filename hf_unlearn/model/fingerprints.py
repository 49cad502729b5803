"""The identity of a model and of a tokenizer as SHA-256: equal content, equal key."""

import hashlib
import json
from collections.abc import Iterable
from typing import Any

import torch
import transformers
from accelerate import Accelerator
from peft import PeftModel
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers import PreTrainedTokenizerBase

from .sharding import full_state_dict, is_partitioned
from .suppressed_forward import suppression_identity


def hash_weights(model: nn.Module) -> str:
    """SHA-256 of every parameter and buffer of the state dict: name, type, shape and bytes.

    The same for a model that is split over ranks as for the whole one; all ranks have to ask.
    """
    digest = hashlib.sha256()
    for name, tensor in full_state_dict(model):
        for part in tensor_bytes(name, tensor):
            digest.update(part)
    return digest.hexdigest()


def tensor_bytes(name: str, tensor: Tensor) -> tuple[bytes, memoryview]:
    """What a hash of weights is made of: name, type and shape of a tensor, and its bytes."""
    flat = tensor.cpu().contiguous().reshape(-1)
    return f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), flat.view(torch.uint8).numpy().data


def hash_answers(model: nn.Module) -> str:
    """SHA-256 of what a model's answers come from: `hash_weights`, and what suppresses them where something does."""
    suppression, weights = suppression_identity(model), hash_weights(model)
    return weights if suppression is None else hash_parts({"weights": weights, "suppression": suppression})


def hash_tokenizer(tokenizer: PreTrainedTokenizerBase | None) -> str:
    """SHA-256 of the vocabulary and the special tokens."""
    if tokenizer is None:
        return "none"
    content = {"vocabulary": tokenizer.get_vocab(), "special": tokenizer.special_tokens_map}
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def _adapter_configs(model: Any) -> dict[str, dict[str, Any]]:
    """What the active adapters' weights are scaled with (lora_alpha, use_rslora, ...), which changes the numbers."""
    if not isinstance(model, PeftModel):
        return {}
    configs = {name: model.peft_config[name].to_dict() for name in model.active_adapters}
    # A set's order changes from process to process, and the key with it.
    return {
        name: {k: sorted(v) if isinstance(v, set) else v for k, v in config.items()}
        for name, config in configs.items()
    }


def model_identity(model: Any, accelerator: Accelerator) -> dict[str, Any]:
    """All of a model that its log-probs depend on: weights, configuration, adapters, attention and precision.

    Args:
        model: wrapped or not; all ranks have to ask where it is split over them.
        accelerator: of the run.
    """
    model = accelerator.unwrap_model(model)
    # Equal weights under another configuration (rope scaling, attention) give other numbers.
    config = {k: v for k, v in model.config.to_dict().items() if k not in ("_name_or_path", "use_cache")}
    suppression = suppression_identity(model)
    return ({} if suppression is None else {"suppression": suppression}) | {
        "transformers": transformers.__version__,
        "weights": hash_weights(model),
        "config": config,
        "adapters": _adapter_configs(model),
        "attention": model.config._attn_implementation,
        "precision": f"{accelerator.mixed_precision} {model.dtype} {accelerator.device.type}",
    }


def hash_parts(parts: dict[str, Any]) -> str:
    """SHA-256 of named parts, each a string, a number or a mapping of them."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


_SAMPLES = 256  # of each tensor


def hash_samples(weights: Iterable[tuple[str, Tensor]]) -> str | None:
    """SHA-256 of some values of every named tensor, for one look at weights that a training step moves all over.

    None where a tensor is not whole here.
    """
    digest = hashlib.sha256()
    for name, weight in weights:
        if isinstance(weight, DTensor) or is_partitioned(weight) or weight.is_meta:
            return None
        flat = weight.detach().reshape(-1)
        places = torch.linspace(0, max(0, flat.numel() - 1), min(_SAMPLES, flat.numel()), device=flat.device).long()
        digest.update(f"{name} {tuple(weight.shape)}".encode())
        digest.update(flat[places].double().cpu().numpy().data)
    return digest.hexdigest()
