"""A plain fine-tuning on rows' answers, step by step: what relearning and some edits are made of."""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar

import torch

from ..data.batch import indexed
from ..data.collator import DataCollatorForUnlearning
from ..data.tokenized_row import TokenizedRow
from .output_head import output_head
from .scoring import score_answers

Row = TypeVar("Row")


def fine_tune(
    model: Any,
    rows: Sequence[TokenizedRow],
    collator: DataCollatorForUnlearning,
    *,
    steps: int,
    batch: int = 8,
    rate: float = 1e-4,
    seed: int = 0,
) -> Iterator[int]:
    """Train a model in place; the number of steps so far, after each of them.

    AdamW at a constant rate, without weight decay, warm-up or clipping, on the mean NLL of a batch's answer tokens.
    The rows follow each other in an order of the seed's alone, a new one every time all have been used, in batches of
    equal size. It ends before the first step whose loss is not finite.

    Args:
        model: whose trainable weights are trained, in the mode that it is in.
        rows: tokenised.
        collator: of rows into batches.
        steps: at most.
        batch: rows of a step; fewer where there are fewer.
        rate: learning rate.
        seed: of the order.
    """
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=rate, weight_decay=0.0)
    head = output_head(model)
    for step, together in enumerate(islice(row_batches(rows, batch, seed), steps), 1):
        inputs = {name: value.to(model.device) for name, value in indexed(collator.collate_rows(together)).items()}
        with torch.enable_grad():
            scores, _ = score_answers(model, head, inputs)
            loss = -scores.logps.mean()
            if not bool(torch.isfinite(loss)):
                return
            loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        yield step


def row_batches(rows: Sequence[Row], size: int, seed: int) -> Iterator[list[Row]]:
    """Batches of equal size without an end; rows follow each other in a new order every time all have been used.

    Args:
        rows: or what stands for them.
        size: of a batch; fewer where there are fewer rows.
        seed: of the orders.
    """
    generator = torch.Generator().manual_seed(seed)

    def places() -> Iterator[int]:
        while True:
            yield from torch.randperm(len(rows), generator=generator).tolist()

    order = places()
    while True:
        yield [rows[place] for place in islice(order, min(size, len(rows)))]
