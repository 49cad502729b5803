"""Two models that read the same tokens in step: next-token logits of both, for decoding from what they differ in."""

from collections.abc import Iterator, Sequence
from inspect import signature
from itertools import groupby
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..errors import input_error
from ..evaluation.generation import left_padded
from ..evaluation.generation_trial import PromptBatches
from ..model.output_head import output_head
from ..model.probe import CALL_ERRORS, Trial, probe_model
from ..model.score_rows import evaluation_mode, preserve_rng_state


class Way(NamedTuple):
    """How models are called step by step.

    Attributes:
        batches: which prompts go together, padded on the left.
        cached: whether a step reads the new tokens alone; else all tokens, for models without a cache of keys and
            values (Mamba, RWKV).
    """

    batches: PromptBatches
    cached: bool


WAYS = [Way(batches, cached) for cached in (True, False) for batches in PromptBatches]


class Steps:
    """Next-token logits of one batch under one model, as the batch grows by a token at a time.

    Args:
        model: a causal language model, in evaluation mode.
        cached: whether only new tokens are read.
    """

    def __init__(self, model: Any, cached: bool) -> None:
        self._model, self._cached = model, cached
        head = output_head(model)
        # None where the model takes no positions, or counts in another way than from a first one.
        self._first_position = probe_model(model, model).first_position if head.takes_positions else None
        # Where a model can put out the last position's logits alone, those of a long prompt are never made.
        self._last_alone = "logits_to_keep" in signature(head.owner.forward).parameters
        self._cache: Any = None
        self._read = 0

    def __call__(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Logits of the token after the batch, [B, V], fp32.

        Args:
            ids: of the whole batch so far, [B, L]; padded on the left, and begun as in the last call.
            mask: 0 on padding, [B, L].
        """
        ids, mask = ids.to(self._model.device), mask.to(self._model.device)
        inputs: dict[str, Any] = {"input_ids": ids[:, self._read :], "attention_mask": mask}
        if self._first_position is not None:
            positions = (mask.cumsum(1) - 1).clamp(min=0) + self._first_position
            inputs["position_ids"] = positions[:, self._read :]
        if self._last_alone:
            inputs["logits_to_keep"] = 1
        if self._cache is not None:
            inputs["past_key_values"] = self._cache
        output = self._model(**inputs, use_cache=self._cached)
        if self._cached:
            self._cache, self._read = output.past_key_values, ids.shape[1]
        return output.logits[:, -1].float()


def common_way(models: Sequence[Any]) -> Way:
    """The first of `WAYS` in which every model gives the logits that it gives to whole rows: tried on two tokens.

    Raises:
        ValueError: there is none.
    """
    for way in WAYS:
        if all(_is_right(model, way) for model in models):
            return way
    raise input_error(
        expected="models that give a prompt's next token the same logits step by step as in one forward",
        got=" and ".join(sorted({type(model).__name__ for model in models})),
        why="what is decoded from two models would be neither's",
        fix="leave this attack out",
    )


def batches(prompts: Sequence[Sequence[int]], rooms: Sequence[int], way: Way, batch_size: int) -> Iterator[list[int]]:
    """Places of prompts that go together, alike in length and with the same room for an answer."""
    size = 1 if way.batches is PromptBatches.ONE else batch_size
    equal = way.batches is PromptBatches.EQUAL_LENGTHS
    order = sorted(range(len(prompts)), key=lambda place: -len(prompts[place]))
    for _, group in groupby(order, key=lambda place: (rooms[place], len(prompts[place]) if equal else 0)):
        places = list(group)
        yield from (places[start : start + size] for start in range(0, len(places), size))


def grown(ids: Tensor, mask: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """A batch with one more token in each row."""
    more = tokens[:, None].to(ids.device)
    return torch.cat([ids, more], 1), torch.cat([mask, torch.ones_like(more)], 1)


def _is_right(model: Any, way: Way) -> bool:
    with preserve_rng_state(), evaluation_mode(model):
        trial = Trial.of(model, model)
        rows = {
            PromptBatches.ANY: [trial.row, trial.row[: trial.shared]],
            PromptBatches.EQUAL_LENGTHS: [trial.row, trial.other],
            PromptBatches.ONE: [trial.row],
        }[way.batches]
        ids, mask = left_padded(rows, trial.pad).values()
        steps = Steps(model, way.cached)
        try:
            first = steps(ids, mask)
            ids, mask = grown(ids, mask, first.argmax(-1))
            second = steps(ids, mask)
        except torch.OutOfMemoryError:
            raise
        except CALL_ERRORS:
            return False  # a model that is not called in this way; the next one may fit
        right = trial.call([[*row, int(token)] for row, token in zip(rows, ids[:, -1], strict=True)]).logits
        return all(
            trial.same(logits[i], right[i, len(row) + step])
            for step, logits in enumerate((first, second), start=-1)
            for i, row in enumerate(rows)
        )
