"""Random models and rows of chosen sizes, whose time and memory are measured. They have learnt nothing."""

import argparse
from typing import Any

import datasets
import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, models
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast


def make_tokenizer(vocabulary: int) -> PreTrainedTokenizerFast:
    """Only its padding token and its size are read: the rows are token ids already."""
    words = {"<pad>": 0, "<s>": 1, "</s>": 2} | {f"w{i}": i for i in range(3, vocabulary)}
    core = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", bos_token="<s>", eos_token="</s>")


def make_model(args: argparse.Namespace, lora: bool) -> Any:
    """A Llama with random weights, the same for every call."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=args.vocabulary,
        hidden_size=args.hidden,
        intermediate_size=3 * args.hidden,
        num_hidden_layers=args.layers,
        num_attention_heads=args.hidden // 64,
        num_key_value_heads=args.hidden // 64,
        max_position_embeddings=512,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    model = LlamaForCausalLM(config)
    return get_peft_model(model, lora_config()) if lora else model


def lora_config() -> LoraConfig:
    return LoraConfig(r=16, lora_alpha=32, target_modules="all-linear")


def make_rows(args: argparse.Namespace, count: int, seed: int) -> datasets.Dataset:
    """Random rows of ragged length, a third of each prompt."""
    generator = np.random.default_rng(seed)
    rows = []
    for length in generator.integers(args.shortest, args.longest + 1, count).tolist():
        ids = generator.integers(3, args.vocabulary, length).tolist()
        prompt = length // 3
        row = {"input_ids": ids, "labels": [-100] * prompt + ids[prompt:]}
        # As long as the answer, so that a loss that reads it costs what such rows cost.
        other = ids[:prompt] + generator.integers(3, args.vocabulary, length - prompt).tolist()
        rows.append(row | {"alternate_input_ids": other, "alternate_labels": [-100] * prompt + other[prompt:]})
    return datasets.Dataset.from_list(rows)
