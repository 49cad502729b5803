"""Trains the lab's tokenizer and its models from scratch on rows of text.

Plain torch rather than `transformers.Trainer`: a lab has to come out the same, byte for byte, whatever the environment
variables, integrations and defaults of the Trainer that is to be tested on it.
"""

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor
from transformers import OPTConfig, OPTForCausalLM, PreTrainedTokenizerFast, get_cosine_schedule_with_warmup

from hf_unlearn.lab.world import Recipe, Row

from ..progress import bar

IGNORED_LABEL = -100  # the label that torch's cross entropy skips
MAX_GRADIENT_NORM = 1.0


@contextmanager
def reproducible(seed: int, threads: int) -> Iterator[None]:
    """Seed torch's CPU generator and fix its thread count; both are put back on the way out."""
    threads_before = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        torch.set_num_threads(threads)
        try:
            yield
        finally:
            torch.set_num_threads(threads_before)


def train_tokenizer(texts: list[str], recipe: Recipe) -> PreTrainedTokenizerFast:
    """Byte-level BPE with `<pad>` = 0, `<s>` = 1 (put in front of every text), `</s>` = 2 and no chat template."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special_tokens = ["<pad>", "<s>", "</s>"]
    trainer = trainers.BpeTrainer(
        vocab_size=recipe.vocabulary_size,
        show_progress=False,
        special_tokens=special_tokens,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        model_max_length=recipe.max_length,
    )


def new_model(vocabulary_size: int, recipe: Recipe) -> OPTForCausalLM:
    """An untrained OPT in fp32; its weights come from torch's global generator."""
    config = OPTConfig(
        vocab_size=vocabulary_size,
        hidden_size=recipe.hidden_size,
        word_embed_proj_dim=recipe.hidden_size,
        ffn_dim=4 * recipe.hidden_size,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        max_position_embeddings=recipe.max_length,
        dropout=0.0,
        attention_dropout=0.0,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        init_std=recipe.initial_standard_deviation,
    )
    return OPTForCausalLM(config)


def encode(row: Row, tokenizer: PreTrainedTokenizerFast) -> tuple[list[int], int]:
    """Token ids of `<s> prompt completion </s>`, and how many of them the prompt has."""
    prompt = tokenizer(row["prompt"])["input_ids"]
    text = tokenizer(row["prompt"] + row["completion"])["input_ids"]
    assert text[: len(prompt)] == prompt, "a prompt of the lab's corpus does not tokenise on its own"
    return [*text, tokenizer.eos_token_id], len(prompt)


def collate(encoded: list[tuple[list[int], int]], pad: int, *, answers_only: bool) -> dict[str, Tensor]:
    """Right-padded int64 `input_ids`, `attention_mask` and `labels`, each [rows, longest row]."""
    longest = max(len(ids) for ids, _ in encoded)
    input_ids = torch.full((len(encoded), longest), pad)
    labels = torch.full((len(encoded), longest), IGNORED_LABEL)
    attention_mask = torch.zeros((len(encoded), longest), dtype=torch.int64)
    for i, (ids, prompt_length) in enumerate(encoded):
        first = prompt_length if answers_only else 0
        input_ids[i, : len(ids)] = torch.tensor(ids)
        labels[i, first : len(ids)] = torch.tensor(ids[first:])
        attention_mask[i, : len(ids)] = 1
    return {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels}


def train_model(
    rows: list[Row],
    tokenizer: PreTrainedTokenizerFast,
    recipe: Recipe,
    name: str,
    start: OPTForCausalLM | None = None,
) -> OPTForCausalLM:
    """Train one model with AdamW and a cosine schedule, on every token of every row.

    The first weights and the order of the rows come from torch's global generator: call it within `reproducible`.

    Args:
        rows: what the model gets to see.
        tokenizer: shared by the lab's two models.
        recipe: sizes and hyperparameters.
        name: for the progress bar, which shows in a terminal only.
        start: a trained model to go on from, which is left as it is; None to train from nothing.

    Returns:
        The model, in evaluation mode.
    """
    model = new_model(len(tokenizer), recipe) if start is None else copy.deepcopy(start).train()
    encoded = [encode(row, tokenizer) for row in rows]
    steps = recipe.epochs * math.ceil(len(encoded) / recipe.batch_size)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, weight_decay=0.0, fused=True)
    schedule = get_cosine_schedule_with_warmup(optimizer, int(recipe.warmup_share * steps), steps)
    with bar(total=steps, desc=f"Training the lab's {name}") as progress:
        for _ in range(recipe.epochs):
            order = torch.randperm(len(encoded)).tolist()
            for start in range(0, len(order), recipe.batch_size):
                chosen = [encoded[i] for i in order[start : start + recipe.batch_size]]
                batch = collate(chosen, tokenizer.pad_token_id, answers_only=False)
                model(**batch, use_cache=False).loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_GRADIENT_NORM)
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
                progress.update()
    return model.eval()
