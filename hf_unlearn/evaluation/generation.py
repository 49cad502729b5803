"""Greedy answers to many prompts: batched, shared by the ranks, in the order asked. It judges nothing."""

import sys
from collections.abc import Sequence
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
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
    starts = range(0, len(mine), batch_size)
    with evaluation_mode(model), accelerator.autocast():
        for start in tqdm(
            starts, desc=description, disable=not accelerator.is_local_main_process or None, leave=False
        ):
            indices = mine[start : start + batch_size]
            inputs = _left_padded([prompts[i] for i in indices], tokenizer.pad_token_id)
            inputs = {name: value.to(accelerator.device) for name, value in inputs.items()}
            room = _room(model, longest_prompt=inputs["input_ids"].shape[1])
            output = model.generate(**inputs, generation_config=_greedy(tokenizer, min(max_new_tokens, room)))
            answers = output[:, inputs["input_ids"].shape[1] :].tolist()
            found += zip(indices, (_until(ids, tokenizer.eos_token_id) for ids in answers), strict=True)
    return [ids for _, ids in sorted(gather_object(found))]


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
