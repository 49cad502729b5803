"""Adversarial suffix: ordinary tokens behind every prompt, found by greedy coordinate gradient (GCG)."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..data.batch import Batch, indexed
from ..model.output_head import output_head
from ..model.score_rows import evaluation_mode
from ..model.scoring import score_answers
from .base import Attack, Leak, Threat
from .blocks import on_device
from .insertion import (
    SHARE,
    Insertion,
    chosen_embeddings,
    embedding_of,
    hidden_from_score,
    minibatches,
    said_end_places,
    unfit_for_insertion,
    vocabulary,
)
from .prompt_parts import special_tokens
from .rows import AttackedRows
from .target import Target


@dataclass(frozen=True)
class Suffix(Attack):
    """Tokens behind the user's words that bring answers back, found by greedy coordinate gradient (GCG).

    A step takes, for every token of the suffix, the `top_k` tokens that the gradient by its one-hot vector promises
    most of, draws `candidates` suffixes with one token exchanged for one of these, and keeps the best of them, or the
    suffix that it had where none is better, by the mean NLL of the answers of some rows. The suffix is universal:
    found on a quarter of the rows, chosen on another one, and what is reported is of rows that it never met. It is
    made of token ids, none of them special; as text it may be tokenised otherwise. It goes where what the user says
    ends, before a template's closing words.

    Args:
        tokens: of the suffix.
        steps: of the search.
        candidates: suffixes tried a step.
        top_k: tokens tried for each place.
        step_rows: rows of a step, at most.
        every: steps between two settings.

    Paper: Zou et al. 2023, https://arxiv.org/abs/2307.15043, algorithms 1 and 2.
    """

    tokens: int = 20
    steps: int = 250
    candidates: int = 512
    top_k: int = 256
    step_rows: int = 8
    every: int = 25

    name = "suffix"
    threat = Threat.WEIGHTS
    formula = "max_s sum_given log p(y | x, s) over tokens s; exp(mean log p(y | x, s)) of other rows"
    paper = "Zou et al. 2023, arXiv:2307.15043"
    given = "the prompts, and a quarter of the rows with their answers"
    cost = "steps x candidates x step_rows forwards of a row"

    def __post_init__(self) -> None:
        super().__post_init__()
        for argument in ("tokens", "steps", "candidates", "top_k", "step_rows", "every"):
            self.require(argument, getattr(self, argument) >= 1, "1 or above")

    def unfit(self, target: Target, rows: AttackedRows) -> str | None:
        return unfit_for_insertion(target, rows, self.tokens)

    def run(self, target: Target, rows: AttackedRows) -> Iterable[Leak]:
        given = rows.given(SHARE)
        yield Leak({"step": 0}, hidden_from_score(target.probabilities(rows.rows), given))
        places = said_end_places(rows, target.tokenizer)
        for step, suffix in self._search(target, rows, places, given):
            behind = Insertion.of(rows.rows, places, suffix.tolist())
            yield Leak({"step": step}, hidden_from_score(target.probabilities(behind.rows), given))

    def _search(
        self, target: Target, rows: AttackedRows, places: list[int], given: list[int]
    ) -> Iterator[tuple[int, Tensor]]:
        """The suffix after each so many steps, and after the last."""
        allowed = ordinary_tokens(target)
        generator = torch.Generator().manual_seed(target.seed)
        drawn = torch.randint(int(allowed.sum()), (self.tokens,), generator=generator)
        suffix = allowed.nonzero().flatten()[drawn]
        draw = minibatches(given, self.step_rows, target.seed)
        insertion = Insertion.of(rows.rows, places, suffix.tolist())
        for step in range(1, self.steps + 1):
            chosen = insertion.select(draw())
            gradient = token_gradient(target, chosen, suffix)
            candidates = self._candidates(gradient.masked_fill(~allowed, torch.inf), suffix, generator)
            losses = candidate_losses(target, chosen, candidates)
            suffix = candidates[int(losses.argmin())]
            if step % self.every == 0 or step == self.steps:
                yield step, suffix

    def _candidates(self, gradient: Tensor, suffix: Tensor, generator: torch.Generator) -> Tensor:
        """The suffix as it is and others with one token exchanged, [1 + candidates, n]."""
        count = min(self.top_k, int(gradient[0].isfinite().sum()))
        best = gradient.topk(max(1, count), largest=False).indices
        candidates = suffix.repeat(1 + self.candidates, 1)
        numbers = torch.arange(1, 1 + self.candidates)
        columns = torch.randint(len(suffix), (self.candidates,), generator=generator)
        ranks = torch.randint(best.shape[1], (self.candidates,), generator=generator)
        candidates[numbers, columns] = best[columns, ranks]
        return candidates


def ordinary_tokens(target: Target) -> Tensor:
    """Flags of the tokens that a suffix may hold: neither special nor padding of the vocabulary, [V]."""
    allowed = torch.zeros(vocabulary(target.model), dtype=torch.bool)
    allowed[: len(target.tokenizer)] = True
    allowed[[token for token in special_tokens(target.tokenizer) if token < len(allowed)]] = False
    return allowed


def token_gradient(target: Target, insertion: Insertion, suffix: Tensor) -> Tensor:
    """Gradient of the mean NLL by the one-hot vectors of a suffix, [n, V], on the CPU, fp32."""
    model, embedding = target.model, embedding_of(target.model)
    batch = insertion.batch(target)
    with torch.no_grad():
        # What the module puts out, not its weight: some models scale it.
        table = embedding(torch.arange(vocabulary(model), device=target.device))
    vectors = table[suffix.to(table.device)].clone().requires_grad_(True)
    with torch.enable_grad(), chosen_embeddings(embedding, vectors, insertion.columns(), batch["input_ids"].shape):
        scores, _ = score_answers(model, output_head(model), batch)
        (gradient,) = torch.autograd.grad(scores.nll_per_token().mean(), [vectors])
    return (gradient @ table.T).float().cpu()


def candidate_losses(target: Target, insertion: Insertion, candidates: Tensor) -> Tensor:
    """Mean over rows of the answers' NLL per token behind each suffix: candidates [C, n] -> [C], nats."""
    base = target.collator.collate_rows(list(insertion.rows))
    columns, rows = insertion.columns(), len(insertion.rows)
    losses = torch.empty(len(candidates) * rows, dtype=torch.float64)
    for start in range(0, len(losses), target.batch_size):
        pairs = torch.arange(start, min(start + target.batch_size, len(losses)))
        chosen = {name: value[pairs % rows] for name, value in base.items()}
        chosen["input_ids"] = chosen["input_ids"].scatter(1, columns[pairs % rows], candidates[pairs // rows])
        losses[pairs] = _losses(target.model, on_device(target, indexed(chosen)))
    return losses.view(len(candidates), rows).mean(1)


def _losses(model: Any, batch: Batch) -> Tensor:
    with evaluation_mode(model):
        scores, _ = score_answers(model, output_head(model), batch)
    return scores.nll_per_token().cpu().double()
