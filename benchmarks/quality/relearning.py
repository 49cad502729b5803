"""Relearning: a short fine-tuning on some forget rows, before the other forget rows are measured."""

from collections.abc import Iterator
from typing import Any

import datasets
import torch


def relearn(model: Any, rows: datasets.Dataset, collator: Any, *, steps: int, batch: int, rate: float) -> None:
    """Fine-tune all weights in place on the answers of rows, in an order of its own seed."""
    model.requires_grad_(True).eval()  # a merged base is still frozen; dropout stays off, as in unlearning
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0)
    order = batches(len(rows), batch)
    columns = rows.select_columns(["input_ids", "labels"])
    for _step in range(steps):
        inputs = collator([columns[i] for i in next(order)])
        model(**inputs.to(model.device)).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def batches(count: int, size: int) -> Iterator[list[int]]:
    """Indices of rows, a new order every epoch, the same in every process."""
    generator = torch.Generator().manual_seed(0)
    while True:
        order = torch.randperm(count, generator=generator).tolist()
        yield from (order[start : start + size] for start in range(0, count, size))
