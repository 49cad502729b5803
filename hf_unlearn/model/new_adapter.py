"""A new LoRA adapter on all linear layers of a model, to fine-tune it with."""

from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers.pytorch_utils import Conv1D

from .score_rows import preserve_rng_state

# Models whose kernels read the weights of a layer past an adapter on it; PEFT refuses to put one there.
_MAMBA = ("falcon_h1", "falcon_mamba", "mamba", "mamba2", "nemotron_h")
_MAMBA_FUSED = ["out_proj", "conv1d"]


def with_new_adapter(model: Any, rank: int, seed: int) -> PeftModel:
    """A model with a new LoRA on all linear layers but the head, alpha twice the rank, in evaluation mode.

    Args:
        model: without an adapter; its weights stay as they are.
        rank: of LoRA.
        seed: of the adapter's first weights.
    """
    config = LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        target_modules="all-linear",
        exclude_modules=_MAMBA_FUSED if model.config.model_type in _MAMBA else None,
        fan_in_fan_out=any(isinstance(layer, Conv1D) for layer in model.modules()),
        task_type="CAUSAL_LM",
    )
    with preserve_rng_state():
        torch.manual_seed(seed)
        adapted: PeftModel = get_peft_model(model, config).eval()
    return adapted
