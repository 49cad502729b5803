"""Answers to many prompts: batched, shared by the ranks, greedy or drawn from a seed."""

import contextlib
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessorList,
    PreTrainedTokenizerBase,
    StoppingCriteriaList,
)

from ..data.answer_ends import template_ends
from ..data.turns import AnswerEnds
from ..model.probe import probe_model
from ..model.score_rows import evaluation_mode
from ..model.sharding import is_sharded, reshard
from ..progress import progress
from .decoding import Decoding, SeededSampling
from .generation_rounds import Answer, Call, EnoughEnded, Rounds
from .generation_trial import PromptBatches, first_positions, prompt_batches
from .stop_rule import StopRule, generation_holders


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

    The prompt and the end-of-text token are not part of an answer. Answers that have ended leave their batch and
    others come in (see `generation_rounds`). A model whose parameters are split over ranks (ZeRO-3, FSDP2) generates
    on all of them in step and, like one whose batches need prompts of equal lengths, each batch to its end.

    Args:
        model: a causal language model on the accelerator's device, prepared by it where it is split.
        tokenizer: for its padding and end-of-text ids.
        prompts: token ids, special tokens included.
        accelerator: whose ranks share the prompts.
        max_new_tokens: longest answer; shorter where the model has no positions for more.
        batch_size: prompts of one batch, alike in length; up to four times as many where prompts and answers are
            short: they hold no more tokens than so many of the longest answer to the longest prompt.
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
    batch_size = 1 if together is PromptBatches.ONE else batch_size
    asked = {}
    for place in wanted:
        room = min(decoding.max_new_tokens, answer_room(model, len(prompts[place])))
        asked[place] = Answer(place, prompts[place], list((begun or {}).get(place, ()))[:room], room)
    order = sorted(wanted, key=lambda place: -asked[place].length)
    rank, ranks = accelerator.process_index, accelerator.num_processes
    whole = [place for place in order if not asked[place].left or stop.ends_in(asked[place].said)]
    if own := whole[rank::ranks]:
        yield own, [stop.until(asked[place].said) for place in own]
    known_whole = set(whole)
    left = [place for place in order if place not in known_whole]
    kind = partial(_kind, model, together is PromptBatches.EQUAL_LENGTHS)
    generator = _Generator(model, stop, accelerator, decoding)
    shown = accelerator.is_local_main_process
    if is_sharded(model):
        calls = _calls_in_step(left, {place: kind(asked[place]) for place in left}, batch_size, rank, ranks)
        for places, mine in progress(calls, description, shown=shown):
            answers = [replace(asked[place]) for place in places]
            generator(Call(answers, max(answer.left for answer in answers), len(answers)), in_step=ranks > 1)
            if mine:
                yield places, [stop.until(answer.said) for answer in answers]
    else:
        longest = max((len(asked[place].prompt) + asked[place].room for place in left), default=0)
        rounds = Rounds(
            [asked[place] for place in left[rank::ranks]], kind, batch_size, longest, together is PromptBatches.ANY
        )
        batches = _in_rounds(rounds, generator)
        yield from progress(batches, description, total=len(left[rank::ranks]), shown=shown, size=lambda b: len(b[0]))
    reshard(model)


def _in_rounds(rounds: Rounds, generator: "_Generator") -> Iterator[tuple[list[int], list[list[int]]]]:
    """Answers that have ended, call by call, with their places."""
    for call in rounds:
        over = generator(call)
        rounds.back(call, [answer for answer, ended in zip(call.answers, over, strict=True) if not ended])
        if done := [answer for answer, ended in zip(call.answers, over, strict=True) if ended]:
            yield [answer.place for answer in done], [generator.stop.until(answer.said) for answer in done]


@dataclass(frozen=True)
class _Generator:
    """Calls `generate`.

    Attributes:
        model: not wrapped, or wrapped by what splits it.
        stop: what ends an answer.
        accelerator: whose device and autocast are used.
        decoding: greedy, or drawn.
    """

    model: Any
    stop: StopRule
    accelerator: Accelerator
    decoding: Decoding

    def __call__(self, call: Call, in_step: bool = False) -> list[bool]:
        """Go on with the answers of a call; whether each has ended.

        Args:
            call: whose answers get tokens.
            in_step: as other ranks do.
        """
        model, answers = self.model, call.answers
        inputs = left_padded([answer.ids for answer in answers], self.stop.tokenizer.pad_token_id)
        inputs = {name: value.to(self.accelerator.device) for name, value in inputs.items()}
        length = inputs["input_ids"].shape[1]
        enough = EnoughEnded(self.stop, answers, length, call.enough, self.accelerator.device)
        noise = self._noise(answers)
        with evaluation_mode(model), self.accelerator.autocast(), own_settings_aside(model):
            output = model.generate(
                **inputs,
                **first_positions(inputs["attention_mask"], probe_model(model, model)),
                generation_config=generation_settings(self.stop, call.tokens),
                logits_processor=LogitsProcessorList(noise),
                stopping_criteria=StoppingCriteriaList([enough]),
                synced_gpus=in_step,
            )
        said = output[:, length:].tolist()
        steps = output.shape[1] - length
        for place, answer in enumerate(answers):
            answer.said = [*answer.said, *said[place][: answer.left]]
            answer.noise = noise[0].state(place, steps) if noise else None
        ended = zip(enough.ended(steps), answers, strict=True)
        return [at_once or self.stop.ends_in(answer.said) for at_once, answer in ended]

    def _noise(self, answers: Sequence[Answer]) -> list["SeededSampling"]:
        if self.decoding.temperature == 0:
            return []
        decoding = self.decoding.of([answer.place for answer in answers])
        prompts, states = [answer.prompt for answer in answers], [answer.noise for answer in answers]
        return [SeededSampling(prompts, decoding, states)]


def _kind(model: Any, alike: bool, answer: Answer) -> tuple[int, int, int]:
    """What the answers of one call have in common, for the model to have positions for the longest of them.

    That is their room, as a long prompt must not shorten the answers beside it; the length where batches need equal
    ones; and where the room is all that there is, how much of the answers is said.

    Args:
        model: not wrapped.
        alike: whether prompts have to be of one length.
        answer: with the beginning that is known.
    """
    # An answer of which more is said goes on for as long as one that begins.
    said = len(answer.said) if answer.room > answer_room(model, answer.length) else 0
    return answer.room, answer.length if alike else 0, said


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
