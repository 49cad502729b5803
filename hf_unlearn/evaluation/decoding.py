"""How a token is chosen: the likeliest, or a draw from a seed that nothing else in the batch changes."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from transformers import LogitsProcessor


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


class SeededSampling(LogitsProcessor):
    """Turns greedy decoding into sampling: argmax(z / T + Gumbel noise) is a draw from softmax(z / T).

    The noise of a prompt comes from a generator of its own, so that a draw does not depend on what else is in the
    batch, and torch's own random state is not touched.

    Args:
        prompts: token ids of the batch.
        decoding: temperature and seed.
        states: of the generators, where answers go on; None for those that begin.
    """

    def __init__(
        self,
        prompts: Sequence[Sequence[int]],
        decoding: Decoding,
        states: Sequence[Tensor | None] | None = None,
    ) -> None:
        self._temperature = decoding.temperature
        seeds = [decoding.seed] * len(prompts) if decoding.seeds is None else decoding.seeds
        named = zip(prompts, seeds, strict=True)
        self._generators = [torch.Generator().manual_seed(_seed_of(prompt, seed)) for prompt, seed in named]
        for generator, state in zip(self._generators, states or [], strict=False):
            if state is not None:
                generator.set_state(state)
        self._draws, self._before = 0, [generator.get_state() for generator in self._generators]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self._draws, self._before = self._draws + 1, [generator.get_state() for generator in self._generators]
        sizes = scores.shape[-1]
        draws = [torch.rand(sizes, generator=generator, dtype=torch.float64) for generator in self._generators]
        # Gumbel noise is -log(-log u); a draw u of exactly 0 would make it minus infinity.
        noise = -torch.log(-torch.log(torch.stack(draws).clamp_min(torch.finfo(torch.float64).tiny)))
        return scores.float() / self._temperature + noise.to(scores.device, torch.float32)

    def state(self, row: int, draws: int) -> Tensor:
        """Of a row's generator after so many draws: all that were made, or all but the last.

        `generate` may go a step further than what it gives.
        """
        return self._generators[row].get_state() if draws == self._draws else self._before[row]


def _seed_of(prompt: Sequence[int], seed: int) -> int:
    digest = hashlib.sha256(f"{seed} {list(prompt)}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1  # torch takes seeds below 2^63
