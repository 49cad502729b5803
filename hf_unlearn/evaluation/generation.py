"""Answers to many prompts: batched, shared by the ranks, greedy or drawn from a seed."""

import contextlib
import hashlib
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, PreTrainedTokenizerBase

from ..data.answer_ends import template_ends
from ..data.turns import AnswerEnds
from ..model.probe import probe_model
from ..model.score_rows import evaluation_mode
from ..model.sharding import is_sharded, reshard
from ..progress import progress
from .generation_trial import PromptBatches, first_positions, prompt_batches
from .stop_rule import StopRule, generation_holders


@dataclass(frozen=True)
class Decoding:
    """How answers are generated.

    Attributes:
        max_new_tokens: longest answer; shorter where the model has no positions for more.
        temperature: 0 for the likeliest token each time; else one draw an answer from softmax(z / temperature).
        seed: of the draws. They depend on it and on the prompt alone: not on the batch, the rank or torch's state.
        seeds: one for each prompt, in place of `seed`.
    """

    max_new_tokens: int
    temperature: float = 0.0
    seed: int = 0
    seeds: Sequence[int] | None = None

    def of(self, places: Sequence[int]) -> "Decoding":
        """The same for some of the prompts, by their places."""
        return self if self.seeds is None else replace(self, seeds=[self.seeds[place] for place in places])


def generate_answers(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    accelerator: Accelerator,
    *,
    max_new_tokens: int,
    batch_size: int,
    description: str,
    ends: AnswerEnds | None = None,
) -> list[list[int]]:
    """Token ids of the greedy answer to each prompt, in the order of `prompts`, on every rank.

    The prompt and the end-of-text token are not part of an answer. A model whose parameters are split over ranks
    (ZeRO-3, FSDP2) generates on all of them in step.

    Args:
        model: a causal language model on the accelerator's device, prepared by it where it is split.
        tokenizer: for its padding and end-of-text ids.
        prompts: token ids, special tokens included.
        accelerator: whose ranks share the prompts.
        max_new_tokens: longest answer; shorter where the model has no positions for more.
        batch_size: prompts of one batch, alike in length.
        description: of the progress bar.
        ends: what ends an answer beside the tokenizer's end-of-text token and the model's own settings, as
            `RowOptions.answer_ends` has it of rows; None for the end of a turn in the tokenizer's chat template.
    """
    decoding = Decoding(max_new_tokens)
    stop = StopRule.of(model, tokenizer, template_ends(tokenizer) if ends is None else ends)
    wanted = range(len(prompts))
    numbered: list[tuple[int, list[int]]] = []  # place of a prompt, ids of its answer
    for indices, answers in answer_batches(
        model, stop, prompts, wanted, accelerator, decoding, batch_size, description
    ):
        numbered += zip(indices, answers, strict=True)
    return [stop.strip(ids) for _, ids in sorted(gather_object(numbered))]


def answer_batches(
    model: Any,
    stop: StopRule,
    prompts: Sequence[Sequence[int]],
    wanted: Iterable[int],
    accelerator: Accelerator,
    decoding: Decoding,
    batch_size: int,
    description: str,
    begun: Mapping[int, Sequence[int]] | None = None,
) -> Iterator[tuple[list[int], list[list[int]]]]:
    """This rank's share of the wanted prompts, batch by batch: their indices and the token ids of their answers.

    An answer that the model ended has what ended it at its end; one that its length ended has none. The arguments are
    those of `generate_answers`; `stop` says what ends an answer, and `wanted` are indices of prompts, the same on all
    ranks. `begun` are the tokens that greedy answers to some of them are known to begin with: they are not generated.
    """
    wanted = list(wanted)
    if not wanted:
        return
    together = prompt_batches(model, accelerator.autocast, own_settings_aside)
    alike, probe = together is PromptBatches.EQUAL_LENGTHS, probe_model(model, model)
    batch_size = 1 if together is PromptBatches.ONE else batch_size
    room = [min(decoding.max_new_tokens, answer_room(model, len(prompt))) for prompt in prompts]
    known = {i: list((begun or {}).get(i, ()))[: room[i]] for i in wanted}
    asked = {i: [*prompts[i], *known[i]] for i in wanted}
    order = sorted(wanted, key=lambda i: -len(asked[i]))
    rank, ranks = accelerator.process_index, accelerator.num_processes
    whole = [i for i in order if len(known[i]) == room[i] or stop.ends_in(known[i])]
    if whole[rank::ranks]:
        yield whole[rank::ranks], [stop.until(known[i]) for i in whole[rank::ranks]]
    left = [i for i in order if i not in set(whole)]
    tokenizer, sharded = stop.tokenizer, is_sharded(model)
    kinds = {i: _kind(model, room[i], len(asked[i]), len(known[i]), alike) for i in left}
    calls = (
        _calls_in_step(left, kinds, batch_size, rank, ranks)
        if sharded
        else [(batch, True) for batch in _batches(left[rank::ranks], kinds, batch_size)]
    )
    for indices, own in progress(calls, description, shown=accelerator.is_local_main_process):
        inputs = left_padded([asked[i] for i in indices], tokenizer.pad_token_id)
        inputs = {name: value.to(accelerator.device) for name, value in inputs.items()}
        with evaluation_mode(model), accelerator.autocast(), own_settings_aside(model):
            output = model.generate(
                **inputs,
                **first_positions(inputs["attention_mask"], probe),
                generation_config=generation_settings(stop, max(room[i] - len(known[i]) for i in indices)),
                logits_processor=_sampling([prompts[i] for i in indices], decoding.of(indices)),
                stopping_criteria=stop.criteria(inputs["input_ids"].shape[1]),
                synced_gpus=sharded and ranks > 1,
            )
        if own:
            said = output[:, inputs["input_ids"].shape[1] :].tolist()
            yield indices, [stop.until([*known[i], *ids][: room[i]]) for i, ids in zip(indices, said, strict=True)]
    reshard(model)


class SeededSampling(LogitsProcessor):
    """Turns greedy decoding into sampling: argmax(z / T + Gumbel noise) is a draw from softmax(z / T).

    The noise of a prompt comes from a generator of its own, so that a draw does not depend on what else is in the
    batch, and torch's own random state is not touched.

    Args:
        prompts: token ids of the batch.
        decoding: temperature and seed.
    """

    def __init__(self, prompts: Sequence[Sequence[int]], decoding: Decoding) -> None:
        self._temperature = decoding.temperature
        seeds = [decoding.seed] * len(prompts) if decoding.seeds is None else decoding.seeds
        named = zip(prompts, seeds, strict=True)
        self._generators = [torch.Generator().manual_seed(_seed_of(prompt, seed)) for prompt, seed in named]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        sizes = scores.shape[-1]
        draws = [torch.rand(sizes, generator=generator, dtype=torch.float64) for generator in self._generators]
        # Gumbel noise is -log(-log u); a draw u of exactly 0 would make it minus infinity.
        noise = -torch.log(-torch.log(torch.stack(draws).clamp_min(torch.finfo(torch.float64).tiny)))
        return scores.float() / self._temperature + noise.to(scores.device, torch.float32)


def _seed_of(prompt: Sequence[int], seed: int) -> int:
    digest = hashlib.sha256(f"{seed} {list(prompt)}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1  # torch takes seeds below 2^63


def _sampling(prompts: Sequence[Sequence[int]], decoding: Decoding) -> LogitsProcessorList:
    return LogitsProcessorList([SeededSampling(prompts, decoding)] if decoding.temperature > 0 else [])


def _kind(model: Any, room: int, length: int, known: int, alike: bool) -> tuple[int, int, int]:
    """What the prompts of one batch have in common, for the model to have positions for the longest of the answers.

    That is their room, as a long prompt must not shorten the answers beside it; the length where batches need equal
    ones; and where the room is all that there is, how much of the answers is known.

    Args:
        model: not wrapped.
        room: tokens of the longest answer.
        length: of the prompt, with the beginning of its answer that is known.
        known: tokens of that beginning.
        alike: whether prompts have to be of one length.
    """
    # A row with more known goes on for as long as one with nothing.
    return room, length if alike else 0, known if room > answer_room(model, length) else 0


def _batches(order: list[int], kinds: Mapping[int, tuple[int, ...]], batch_size: int) -> list[list[int]]:
    """Prompts in batches of one kind."""
    ordered = sorted(order, key=lambda i: kinds[i], reverse=True) if len({kinds[i] for i in order}) > 1 else order
    alike = [list(group) for _, group in groupby(ordered, key=lambda i: kinds[i])]
    return [group[start : start + batch_size] for group in alike for start in range(0, len(group), batch_size)]


def _calls_in_step(
    order: list[int], kinds: Mapping[int, tuple[int, ...]], batch_size: int, rank: int, ranks: int
) -> list[tuple[list[int], bool]]:
    """A rank's calls of a model that is split over ranks, as many as every other rank makes: (prompts, its own share).

    In a call all ranks have the same room: one that has its answers goes on with the others to the end, and must not
    run out of positions. A rank without a share of its own answers the shortest prompt again, for the others' sake.
    """
    calls = []
    for alike in _batches(order, kinds, batch_size * ranks):
        own = alike[rank::ranks]
        calls.append((own or alike[-1:], bool(own)))
    return calls


@contextlib.contextmanager
def own_settings_aside(model: Any) -> Iterator[None]:
    """Without the settings that came with the model, which `generate` puts wherever a config leaves one open."""
    holders = generation_holders(model)
    own = holders[-1].generation_config
    try:
        for holder in holders:
            holder.generation_config = GenerationConfig()
        yield
    finally:
        for holder in holders:
            holder.generation_config = own


def generation_settings(stop: StopRule, max_new_tokens: int) -> GenerationConfig:
    """Greedy decoding up to what ends an answer; a processor of logits makes draws of it."""
    return GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=False,
        use_cache=True,
        pad_token_id=stop.tokenizer.pad_token_id,
        eos_token_id=list(stop.ends.tokens),
        bos_token_id=stop.tokenizer.bos_token_id,
    )


def answer_room(model: Any, longest_prompt: int) -> int:
    """Tokens that the model has positions for after a prompt, one kept back for an end-of-text token."""
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return sys.maxsize if positions is None else max(1, positions - longest_prompt - 1)


def left_padded(prompts: Sequence[Sequence[int]], pad_token_id: int) -> dict[str, Tensor]:
    """`input_ids` and `attention_mask` of a batch that is padded on the left, [B, L] each."""
    length = max(map(len, prompts))
    ids = torch.full((len(prompts), length), pad_token_id)
    mask = torch.zeros_like(ids)
    for i, prompt in enumerate(prompts):
        ids[i, length - len(prompt) :] = torch.as_tensor(prompt)
        mask[i, length - len(prompt) :] = 1
    return {"input_ids": ids, "attention_mask": mask}
