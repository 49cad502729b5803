"""Rows whose answer tokens a model draws itself: what the Fisher matrix, unlike the empirical one, is made of."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..data.tokenized_row import IGNORED_LABEL, TokenizedRow
from ..evaluation.questioner import OneProcess, Questioner
from ..model.head_query import TokenReadout
from ..model.output_head import output_head
from ..model.score_rows import RowScorer
from ..model.scoring import score_answers
from .ascent import row_batches
from .kronecker import DrawnBatch

_DRAWN = "drawn"


def with_drawn_answers(model: Any, questioner: Questioner, rows: Sequence[TokenizedRow]) -> list[TokenizedRow]:
    """The same rows with other labels: at each answer token one that the model draws there, given the row's own text.

    The draws follow from the questioner's seed; what the model reads stays as it is.
    """
    generator = torch.Generator().manual_seed(questioner.seed)
    scorer = RowScorer(questioner.collator, OneProcess(model.device), questioner.batch_size)
    readout = TokenReadout(_DRAWN, None, partial(_draw, generator))
    drawn: dict[int, list[int]] = {}
    for places, scores in scorer.batches(model, rows, range(len(rows)), "likelihoods", [readout]):
        tokens = scores.readouts[_DRAWN].long().cpu().split(scores.lengths.tolist())
        drawn |= {place: part.tolist() for place, part in zip(places, tokens, strict=True)}
    return [row | {"labels": _relabelled(row["labels"], drawn[place])} for place, row in enumerate(rows)]


def drawn_batches(model: Any, questioner: Questioner, rows: Sequence[TokenizedRow]) -> Iterator[DrawnBatch]:
    """Rows with drawn answers as batches to be differentiated by all weights that are trainable."""
    head, weights = output_head(model), [weight for weight in model.parameters() if weight.requires_grad]
    for batch in row_batches(model, questioner, rows):

        def backward(batch: dict[str, Any] = batch) -> None:
            scores, _ = score_answers(model, head, batch)
            torch.autograd.grad(-scores.logps.sum(), weights, allow_unused=True)

        yield DrawnBatch(batch["attention_mask"], sum(batch["answer_index"].host_lengths), backward)


def _draw(generator: torch.Generator, logits: Tensor, token_ids: Tensor, reference: Tensor | None) -> Tensor:
    """A token of each distribution, [t, V] -> [t]: the first whose cumulated probability exceeds a uniform draw."""
    cumulated = logits.double().softmax(-1).cumsum(-1)
    uniform = torch.rand(len(logits), 1, generator=generator, dtype=torch.float64).to(logits.device)
    # By the last sum, which is 1 but for rounding: a token beyond the vocabulary is never drawn.
    tokens = torch.searchsorted(cumulated, uniform * cumulated[:, -1:], right=True).squeeze(-1)
    return tokens.clamp(max=logits.shape[-1] - 1).to(logits.dtype)  # whole numbers, exact below 2^24


def _relabelled(labels: Sequence[int], drawn: Sequence[int]) -> list[int]:
    """Labels with the drawn tokens in place of the trained ones; the first position is never predicted."""
    tokens = iter(drawn)
    return [IGNORED_LABEL, *(next(tokens) if label != IGNORED_LABEL else label for label in labels[1:])]
