"""The cases of gpu.py: model shape, adapter, trainer. Plain data; importing this file loads no library."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Shape:
    """A model's configuration; the weights are random."""

    architecture: str
    config: dict[str, Any]

    @property
    def head_parameters(self) -> int:
        return self.config["vocab_size"] * self.config["hidden_size"]


SHAPES = {
    "opt-1.3b": Shape(
        "opt",
        {
            "vocab_size": 50272,
            "hidden_size": 2048,
            "num_hidden_layers": 24,
            "num_attention_heads": 32,
            "ffn_dim": 8192,
            "word_embed_proj_dim": 2048,
            "max_position_embeddings": 2048,
            "dropout": 0.0,
        },
    ),
    "llama-8b": Shape(
        "llama",
        {
            "vocab_size": 128256,
            "hidden_size": 4096,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "intermediate_size": 14336,
            "max_position_embeddings": 8192,
            "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0},
            "rms_norm_eps": 1e-5,
            "tie_word_embeddings": False,
        },
    ),
}

# What stands in for a shape when the script itself is tried on a CPU.
TINY = {
    "opt-1.3b": {"vocab_size": 512, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    | {"ffn_dim": 128, "word_embed_proj_dim": 64},
    "llama-8b": {"vocab_size": 512, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    | {"num_key_value_heads": 1, "intermediate_size": 128},
}


@dataclass(frozen=True)
class Setting:
    """How a shape is trained.

    Attributes:
        shape: of SHAPES.
        lora: r=16 on all linear layers; else every weight.
        weights: precision of the base weights. Matrix products are in bf16 (bf16=True) everywhere. AdamW keeps its
            states in the precision of what it trains: fp32 for adapters and for fp32 weights, bf16 for bf16 weights.
        checkpointing: activations are recomputed in backward.
        batch: forget rows a step; as many retain rows come with them.
        small_batch: the same on a card below 100 GiB.
    """

    shape: str
    lora: bool
    weights: str
    checkpointing: bool
    batch: int = 4
    small_batch: int = 4


SETTINGS = {
    "llama-8b lora": Setting("llama-8b", lora=True, weights="bfloat16", checkpointing=True),
    "opt-1.3b full": Setting("opt-1.3b", lora=False, weights="float32", checkpointing=False),
    # Weights, gradients and two AdamW states in bf16: 4 x 15 GiB. Half the batch leaves plain Trainer's logits room.
    "llama-8b full": Setting("llama-8b", lora=False, weights="bfloat16", checkpointing=True, small_batch=2),
    "opt-1.3b lora": Setting("opt-1.3b", lora=True, weights="bfloat16", checkpointing=False),
}

# By trainer: the forget and the retain loss of ours, None for the others'.
TRAINERS: dict[str, tuple[str, str] | None] = {
    "plain Trainer": None,
    "simnpo + nll": ("simnpo", "nll"),
    "npo cached + nll": ("npo", "nll"),
    "simnpo + nll, padding-free": ("simnpo", "nll"),  # with flex attention
    "simnpo + nll, flash, padding-free": ("simnpo", "nll"),
    "simnpo + nll, compiled": ("simnpo", "nll"),
    "npo + kl": ("npo", "kl"),  # the reference is the adapter switched off, or a frozen copy
    "TRL SFTTrainer": None,
}


@dataclass(frozen=True)
class Case:
    """One process of gpu.py."""

    kind: str  # "rate", "losses" or "steps"
    name: str
    setting: str = ""
    trainer: str = ""
    device: str = ""


def kl_reference(setting: Setting) -> str:
    return "adapter off" if setting.lora else "frozen copy"


def all_cases(device: str) -> list[Case]:
    """In the order in which they are run: what matters most comes first."""
    cases = [Case("rate", "matrix rate", device=device)]
    cases += [Case("losses", f"losses {where}", device=where) for where in dict.fromkeys((device, "cpu"))]
    for name, setting in SETTINGS.items():
        for trainer in TRAINERS:
            if trainer.endswith(("padding-free", "compiled")) and SHAPES[setting.shape].architecture == "opt":
                continue  # only flash attention tells its rows apart, and what a compiler gains shows at 8B
            label = f"{trainer} ({kl_reference(setting)})" if trainer == "npo + kl" else trainer
            cases.append(Case("steps", f"{name}: {label}", name, trainer, device))
    return cases


# A frozen copy of an 8B model in bf16 beside weights, gradients and optimizer: 5 x 15 GiB and the activations.
FROZEN_8B_GIB = 90


def unfit(case: Case, card_gib: float | None) -> str | None:
    """Why a case cannot be run on a card of that size, if so."""
    too_small = card_gib is not None and card_gib < FROZEN_8B_GIB
    if too_small and case.setting == "llama-8b full" and case.trainer == "npo + kl":
        return f"needs about {FROZEN_8B_GIB} GiB: a frozen copy beside weights, gradients and optimizer"
    return None
