"""A plain fine-tuning on rows, step by step: what relearning and edits are made of."""

from collections.abc import Callable, Iterator, Sequence
from itertools import cycle, islice
from typing import Any, TypeVar

import torch
from torch import Tensor
from transformers import get_scheduler

from ..data.batch import Batch, indexed
from ..data.collator import DataCollatorForUnlearning
from ..data.tokenized_row import TokenizedRow
from .output_head import OutputHead, output_head
from .scoring import score_answers

Row = TypeVar("Row")
# (model, its output head, batch) -> the loss of a step
BatchLoss = Callable[[Any, OutputHead, Batch], Tensor]


def answer_nll(model: Any, head: OutputHead, batch: Batch) -> Tensor:
    """Mean NLL of a batch's answer tokens, nats."""
    scores, _ = score_answers(model, head, batch)
    return -scores.logps.mean()


def fine_tune(
    model: Any,
    rows: Sequence[TokenizedRow],
    collator: DataCollatorForUnlearning,
    *,
    steps: int,
    batch: int = 8,
    rate: float = 1e-4,
    seed: int = 0,
    schedule: str = "constant",
    warmup: int = 0,
    shuffle: bool = True,
    loss: BatchLoss = answer_nll,
) -> Iterator[int]:
    """Train a model in place; the number of steps so far, after each of them.

    AdamW without weight decay or clipping. The rows follow each other in an order of the seed's alone, a new one every
    time all have been used, in batches of equal size. It ends before the first step whose loss is not finite.

    Args:
        model: whose trainable weights are trained, in the mode that it is in.
        rows: tokenised; `whole_text` makes every token of them count.
        collator: of rows into batches.
        steps: at most.
        batch: rows of a step; fewer where there are fewer.
        rate: learning rate; the highest one of a schedule.
        seed: of the order.
        schedule: of the rate over all steps, by its name in transformers: "constant", "linear",
            "cosine".
        warmup: steps in which the rate rises; not for "constant".
        shuffle: False for the rows as they are given, over and over.
        loss: of a batch.
    """
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=rate, weight_decay=0.0)
    scheduler = get_scheduler(schedule, optimizer, warmup, steps)
    head = output_head(model)
    for step, together in enumerate(islice(row_batches(rows, batch, seed if shuffle else None), steps), 1):
        inputs = {name: value.to(model.device) for name, value in indexed(collator.collate_rows(together)).items()}
        with torch.enable_grad():
            value = loss(model, head, inputs)
            if not bool(torch.isfinite(value)):
                return
            value.backward()
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        yield step


def whole_text(rows: Sequence[TokenizedRow]) -> list[TokenizedRow]:
    """The same rows with every token trained, prompts too."""
    return [{"input_ids": row["input_ids"], "labels": list(row["input_ids"])} for row in rows]


def row_batches(rows: Sequence[Row], size: int, seed: int | None) -> Iterator[list[Row]]:
    """Batches of equal size without an end; rows follow each other in a new order every time all have been used.

    Args:
        rows: or what stands for them.
        size: of a batch; fewer where there are fewer rows.
        seed: of the orders; None for that in which the rows are given.
    """
    generator = torch.Generator().manual_seed(seed or 0)

    def places() -> Iterator[int]:
        while True:
            yield from torch.randperm(len(rows), generator=generator).tolist()

    order = cycle(range(len(rows))) if seed is None else places()
    while True:
        yield [rows[place] for place in islice(order, min(size, len(rows)))]
