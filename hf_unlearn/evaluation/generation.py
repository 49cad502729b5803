"""Greedy answers to many prompts: batched, shared by the ranks, in the order asked. It judges nothing."""

import contextlib
import sys
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from peft import PeftModel
from torch import Tensor
from tqdm.auto import tqdm
from transformers import GenerationConfig, PreTrainedTokenizerBase

from ..measurement import evaluation_mode


def generate_answers(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    accelerator: Accelerator,
    *,
    max_new_tokens: int,
    batch_size: int,
    description: str,
) -> list[list[int]]:
    """Token ids of the greedy answer to each prompt, in the order of `prompts`, on every rank.

    The prompt and whatever follows the end-of-text token are not part of an answer. The model must be whole on every
    rank (no ZeRO-3, no FSDP).

    Args:
        model: a causal language model on the accelerator's device.
        tokenizer: for its padding and end-of-text ids.
        prompts: token ids, special tokens included.
        accelerator: whose ranks share the prompts.
        max_new_tokens: longest answer; shorter where the model has no positions for more.
        batch_size: prompts of one batch, alike in length.
        description: of the progress bar.
    """
    order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
    mine = order[accelerator.process_index :: accelerator.num_processes]
    found: list[tuple[int, list[int]]] = []
    room = [min(max_new_tokens, _room(model, len(prompt))) for prompt in prompts]
    batches = _batches(mine, room, batch_size)
    bar = tqdm(batches, desc=description, disable=not accelerator.is_local_main_process or None, leave=False)
    with evaluation_mode(model), accelerator.autocast(), _own_settings_aside(model):
        for indices in bar:
            inputs = _left_padded([prompts[i] for i in indices], tokenizer.pad_token_id)
            inputs = {name: value.to(accelerator.device) for name, value in inputs.items()}
            output = model.generate(**inputs, generation_config=_greedy(tokenizer, room[indices[0]]))
            answers = output[:, inputs["input_ids"].shape[1] :].tolist()
            found += zip(indices, (_until(ids, tokenizer.eos_token_id) for ids in answers), strict=True)
    return [ids for _, ids in sorted(gather_object(found))]


def _batches(order: list[int], room: list[int], batch_size: int) -> list[list[int]]:
    """Prompts in batches that have the same room: a long prompt must not shorten the answers beside it."""
    alike = [list(group) for _, group in groupby(order, key=lambda i: room[i])]
    return [group[start : start + batch_size] for group in alike for start in range(0, len(group), batch_size)]


@contextlib.contextmanager
def _own_settings_aside(model: Any) -> Iterator[None]:
    """Without the settings that came with the model, which `generate` puts wherever a config leaves one open."""
    # A PeftModel hands its settings to its base model at every call, and leaves them there.
    holders = [model, model.get_base_model()] if isinstance(model, PeftModel) else [model]
    own = holders[-1].generation_config
    try:
        for holder in holders:
            holder.generation_config = GenerationConfig()
        yield
    finally:
        for holder in holders:
            holder.generation_config = own


def _greedy(tokenizer: PreTrainedTokenizerBase, max_new_tokens: int) -> GenerationConfig:
    return GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=False,
        use_cache=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=tokenizer.bos_token_id,
    )


def _room(model: Any, longest_prompt: int) -> int:
    """Tokens that the model has positions for after a prompt, one kept back for an end-of-text token."""
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return sys.maxsize if positions is None else max(1, positions - longest_prompt - 1)


def _left_padded(prompts: list[Sequence[int]], pad_token_id: int) -> dict[str, Tensor]:
    length = max(map(len, prompts))
    ids = torch.full((len(prompts), length), pad_token_id)
    mask = torch.zeros_like(ids)
    for i, prompt in enumerate(prompts):
        ids[i, length - len(prompt) :] = torch.as_tensor(prompt)
        mask[i, length - len(prompt) :] = 1
    return {"input_ids": ids, "attention_mask": mask}


def _until(ids: list[int], end: int) -> list[int]:
    return ids[: ids.index(end)] if end in ids else ids
