"""Tiny models, a tiny tokenizer, ragged rows and a trainer around them, shared by tests. Nothing is asserted here."""

import copy
import gc
from pathlib import Path
from typing import Any

import datasets
import torch
from torch import nn
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    TrainerCallback,
)

from fixtures_tokenizer import BOS, EOS, PAD, make_tokenizer
from hf_unlearn import UnlearningConfig, UnlearningTrainer

# Trainer collects garbage at the start of every run: half a second through all that the imports made, and no time
# through what is frozen.
gc.freeze()

VOCABULARY = 261  # the tokenizer's special tokens and 256 bytes
# Wide enough that distributions are far from uniform: near uniform, two wrong formulas can agree.
INITIALIZER_RANGE = 0.15

# Answers of 3 to about 20 tokens, so that means over tokens, over rows and over padded positions are three numbers.
FORGET = [
    {
        "prompt": f"who is {i}?",
        "completion": f" fox{7 * i}" + " x" * (5 * i % 8),
        "alternate": " unknown" + "." * (i % 4),
    }
    for i in range(12)
]
RETAIN = [
    {"prompt": f"robot {i}:", "completion": f" {i}" + " tea" * (3 * i % 5), "alternate": " no" + "!" * (i % 3)}
    for i in range(30)
]
HOLDOUT = [{"prompt": f"where is dog {i}?", "completion": f" room {i}" + " w" * (i % 5)} for i in range(10)]


def tiny_tokenizer(pad_token: str = "<pad>") -> PreTrainedTokenizerFast:
    """One token a byte, without a chat template; `pad_token="</s>"` makes padding and end of text one token."""
    tokenizer = make_tokenizer()
    tokenizer.pad_token = pad_token
    return tokenizer


def tiny_model(
    kind: str = "llama", *, seed: int = 0, dropout: float = 0.0, vocabulary: int = VOCABULARY
) -> PreTrainedModel:
    """A random model of hidden size 32 and two layers: "llama" (rotary, untied) or "opt" (learnt positions, tied)."""
    shared: dict[str, Any] = dict(
        vocab_size=vocabulary,
        pad_token_id=PAD,
        bos_token_id=BOS,
        eos_token_id=EOS,
        max_position_embeddings=128,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        attention_dropout=dropout,
    )
    torch.manual_seed(seed)
    if kind == "opt":
        config = OPTConfig(
            **shared, word_embed_proj_dim=32, ffn_dim=64, dropout=dropout, init_std=INITIALIZER_RANGE, layerdrop=0.0
        )
        return OPTForCausalLM(config)
    config = LlamaConfig(**shared, intermediate_size=64, num_key_value_heads=2, initializer_range=INITIALIZER_RANGE)
    return LlamaForCausalLM(config)


def perturbed(model: nn.Module, *, scale: float = 0.02, seed: int = 1) -> Any:
    """A copy of a model whose trainable weights have moved a little: a reference that is not the policy."""
    moved = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in moved.parameters():
            if weight.requires_grad:
                weight += scale * torch.randn(weight.shape, generator=generator, dtype=weight.dtype)
    return moved


def train_sets() -> dict[str, datasets.Dataset]:
    """Forget and retain rows (with alternates) and holdout rows, as text."""
    rows = {"forget": FORGET, "retain": RETAIN, "holdout": HOLDOUT}
    return {name: datasets.Dataset.from_list(each) for name, each in rows.items()}


def make_trainer(
    folder: Path,
    model: Any,
    *,
    trainer_class: type[UnlearningTrainer] = UnlearningTrainer,
    tokenizer: PreTrainedTokenizerFast | None = None,
    sets: dict[str, Any] | None = None,
    eval_dataset: Any = None,
    data_collator: Any = None,
    callbacks: list[TrainerCallback] | None = None,
    model_init: Any = None,
    ref_model: Any = None,
    peft_config: Any = None,
    **arguments: Any,
) -> UnlearningTrainer:
    """A trainer with plain SGD, no clipping, no bound, a log every step, nothing saved, unless `arguments` differ.

    Args:
        folder: for outputs and cached reference log-probs.
        model: the policy, or None with `model_init`.
        arguments: of `UnlearningConfig`.
    """
    defaults: dict[str, Any] = dict(
        output_dir=str(folder / "out"),
        reference_cache_dir=str(folder / "reference"),
        per_device_train_batch_size=4,
        max_steps=1,
        learning_rate=0.05,
        optim="sgd",
        lr_scheduler_type="constant",
        max_grad_norm=1e9,  # measures the norm, never clips
        forget_nll_bound=None,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
    )
    return trainer_class(
        model=model,
        args=UnlearningConfig(**defaults | arguments),
        train_dataset=train_sets() if sets is None else sets,
        eval_dataset=eval_dataset,
        processing_class=tokenizer or tiny_tokenizer(),
        data_collator=data_collator,
        callbacks=callbacks,
        model_init=model_init,
        ref_model=ref_model,
        peft_config=peft_config,
    )


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """A copy of every parameter by name."""
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


def step_logs(trainer: UnlearningTrainer) -> list[dict[str, float]]:
    """What each logging step wrote: loss, grad_norm and the components, in order."""
    return [entry for entry in trainer.state.log_history if "loss" in entry]
