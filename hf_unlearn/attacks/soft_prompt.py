"""Soft prompt: vectors in front of every prompt that are tuned on some rows and tried on others."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..model.output_head import output_head
from ..model.scoring import score_answers
from .base import Attack, Leak, Threat
from .insertion import (
    SHARE,
    Insertion,
    chosen_embeddings,
    embedding_of,
    hidden_from_score,
    minibatches,
    probabilities_with,
    start_place,
    unfit_for_insertion,
)
from .prompt_parts import special_tokens
from .rows import AttackedRows
from .target import Target


@dataclass(frozen=True)
class SoftPrompt(Attack):
    """A few vectors in place of words, put in front of all prompts and tuned by gradient to bring answers back.

    They are universal: tuned on a quarter of the rows, chosen on another one, and what is reported is of rows that
    they never met. Soft prompts bring forth whatever they are tuned for, so the controls say how much of it a model
    gives that never knew the rows. The model stays as it is.

    Args:
        lengths: numbers of vectors, each tried by itself.
        steps: of Adam at a constant rate.
        every: steps between two settings.
        rate: of Adam, in units of the root mean square of the model's embeddings.

    Paper: Schwinn et al. 2024, https://arxiv.org/abs/2402.09063; Lester et al. 2021, https://arxiv.org/abs/2104.08691.
    """

    lengths: tuple[int, ...] = (1, 4, 10)
    steps: int = 100
    every: int = 25
    rate: float = 0.1

    name = "soft_prompt"
    threat = Threat.WEIGHTS
    formula = "max_v sum_given log p(y | v, x); exp(mean log p(y | v, x)) of other rows"
    paper = "Schwinn et al. 2024, arXiv:2402.09063"
    given = "the prompts, and a quarter of the rows with their answers"
    cost = "steps forwards and backwards of a batch for each length"

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "lengths", tuple(self.lengths))  # a list where it comes from a file
        whole = all(type(length) is int and length >= 1 for length in self.lengths)
        self.require("lengths", bool(self.lengths) and whole, "whole numbers, each 1 or above")
        self.require("steps", self.steps >= 1, "1 or above")
        self.require("every", self.every >= 1, "1 or above")
        self.require_positive("rate")

    def unfit(self, target: Target, rows: AttackedRows) -> str | None:
        return unfit_for_insertion(target, rows, max(self.lengths))

    def run(self, target: Target, rows: AttackedRows) -> Iterable[Leak]:
        given = rows.given(SHARE)
        untouched = target.probabilities(rows.rows)
        yield Leak({"vectors": 0, "step": 0}, hidden_from_score(untouched, given))
        places = [start_place(row, target.tokenizer) for row in rows.rows]
        for length in self.lengths:
            ids, start = _start(target, length)
            insertion = Insertion.of(rows.rows, places, ids)
            for step, vectors in self._tuned(target, insertion, given, start):
                leak = probabilities_with(target, insertion, vectors)
                yield Leak({"vectors": length, "step": step}, hidden_from_score(leak, given))

    def _tuned(
        self, target: Target, insertion: Insertion, given: list[int], start: Tensor
    ) -> Iterator[tuple[int, Tensor]]:
        """The vectors after each so many steps, and after the last."""
        vectors = start.float().clone().requires_grad_(True)
        scale = float(start.float().pow(2).mean().sqrt())
        optimizer = torch.optim.Adam([vectors], lr=self.rate * scale)
        draw = minibatches(given, target.batch_size, target.seed)
        for step in range(1, self.steps + 1):
            # Not backward(): the model's weights may be trainable, and their gradients belong to others.
            with torch.enable_grad():
                (vectors.grad,) = torch.autograd.grad(_loss(target, insertion.select(draw()), vectors), [vectors])
            optimizer.step()
            if step % self.every == 0 or step == self.steps:
                yield step, vectors.detach().clone()


def _start(target: Target, length: int) -> tuple[list[int], Tensor]:
    """Ordinary tokens drawn at random and their embeddings [n, H], from which tuning starts."""
    special = special_tokens(target.tokenizer)
    ordinary = torch.tensor([token for token in range(len(target.tokenizer)) if token not in special])
    generator = torch.Generator().manual_seed(target.seed)
    ids = ordinary[torch.randint(len(ordinary), (length,), generator=generator)]
    with torch.no_grad():
        return ids.tolist(), embedding_of(target.model)(ids.to(target.device)).detach()


def _loss(target: Target, insertion: Insertion, vectors: Tensor) -> Any:
    """Mean over rows of the answers' NLL per token, nats."""
    batch = insertion.batch(target)
    model = target.model
    with chosen_embeddings(embedding_of(model), vectors, insertion.columns(), batch["input_ids"].shape):
        scores, _ = score_answers(model, output_head(model), batch)
    return scores.nll_per_token().mean()
