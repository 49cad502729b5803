"""Models with random weights and random rows of chosen sizes, for measuring time and memory."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, models
from transformers import LlamaConfig, LlamaForCausalLM, OPTConfig, OPTForCausalLM, PreTrainedTokenizerFast

ARCHITECTURES = ("llama", "opt")


@dataclass(frozen=True)
class Sizes:
    """A model and its batches.

    Attributes:
        architecture: "llama" or "opt".
        vocabulary: V.
        hidden: width; a head has 64 of it, or all of it where it is narrower.
        layers: decoder blocks.
        shortest, longest: tokens of a row, drawn evenly between them.
        batch: forget rows a step and process; as many retain rows come with them.
    """

    architecture: str = "llama"
    vocabulary: int = 8192
    hidden: int = 256
    layers: int = 4
    shortest: int = 16
    longest: int = 128
    batch: int = 8


def make_tokenizer(vocabulary: int) -> PreTrainedTokenizerFast:
    """Only its padding token and its size are read: the rows are token ids already."""
    words = {"<pad>": 0, "<s>": 1, "</s>": 2} | {f"w{i}": i for i in range(3, vocabulary)}
    core = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", bos_token="<s>", eos_token="</s>")


def make_model(sizes: Sizes, lora: bool) -> Any:
    """A model with random weights, the same for every call, without dropout."""
    torch.manual_seed(0)
    heads = max(1, sizes.hidden // 64)
    common = {
        "vocab_size": sizes.vocabulary,
        "hidden_size": sizes.hidden,
        "num_hidden_layers": sizes.layers,
        "num_attention_heads": heads,
        "max_position_embeddings": max(512, sizes.longest),
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    if sizes.architecture == "llama":
        model = LlamaForCausalLM(LlamaConfig(**common, intermediate_size=3 * sizes.hidden, num_key_value_heads=heads))
    else:
        # Trained without dropout by our trainer, so that plain Trainer must be too.
        model = OPTForCausalLM(
            OPTConfig(**common, ffn_dim=4 * sizes.hidden, word_embed_proj_dim=sizes.hidden, dropout=0.0)
        )
    return get_peft_model(model, lora_config()) if lora else model


def lora_config() -> LoraConfig:
    return LoraConfig(r=16, lora_alpha=32, target_modules="all-linear")


def make_rows(sizes: Sizes, count: int, seed: int) -> datasets.Dataset:
    """Random rows of ragged length, a third of each prompt."""
    generator = np.random.default_rng(seed)
    rows = []
    for length in generator.integers(sizes.shortest, sizes.longest + 1, count).tolist():
        ids = generator.integers(3, sizes.vocabulary, length).tolist()
        prompt = length // 3
        row = {"input_ids": ids, "labels": [-100] * prompt + ids[prompt:]}
        # As long as the answer, so that a loss that reads it costs what such rows cost.
        other = ids[:prompt] + generator.integers(3, sizes.vocabulary, length - prompt).tolist()
        rows.append(row | {"alternate_input_ids": other, "alternate_labels": [-100] * prompt + other[prompt:]})
    return datasets.Dataset.from_list(rows)


def answer_tokens(rows: Sequence[dict[str, Any]]) -> int:
    """Tokens that are predicted; the first of a row never is."""
    return sum(label != -100 for row in rows for label in row["labels"][1:])
