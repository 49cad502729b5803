"""Fine-tuning as a loop of plain torch and transformers, one padded batch after the other."""

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch


def naive_fine_tune(
    model: Any,
    rows: Sequence[dict[str, Any]],
    *,
    steps: int,
    batch: int,
    rate: float,
    seed: int | None = 0,
    warmup: int | None = None,
    whole_text: bool = False,
    loss: Callable[[Any, dict[str, torch.Tensor]], torch.Tensor] | None = None,
) -> Any:
    """A trained copy of a model, in evaluation mode.

    Args:
        model: left as it is.
        rows: tokenised.
        steps, batch, rate: of AdamW without weight decay.
        seed: of the order; None for the rows as they are given, over and over.
        warmup: steps of it, then a cosine; None for a constant rate.
        whole_text: every token is a label.
        loss: of (model, batch); None for the model's own.
    """
    model = copy.deepcopy(model).eval()
    size = min(batch, len(rows))
    generator = torch.Generator().manual_seed(seed or 0)
    order: list[int] = []
    while len(order) < steps * size:
        order += range(len(rows)) if seed is None else torch.randperm(len(rows), generator=generator).tolist()
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0)
    for step in range(steps):
        if warmup is not None:
            progress = (step - warmup) / (steps - warmup)
            share = step / warmup if step < warmup else 0.5 * (1 + math.cos(math.pi * progress))
            optimizer.param_groups[0]["lr"] = rate * share
        together = [rows[place] for place in order[step * size : (step + 1) * size]]
        longest = max(len(row["input_ids"]) for row in together)
        inputs = {name: torch.zeros(size, longest, dtype=torch.long) for name in ("input_ids", "attention_mask")}
        inputs["labels"] = torch.full((size, longest), -100)
        for i, row in enumerate(together):
            length = len(row["input_ids"])
            inputs["input_ids"][i, :length] = torch.tensor(row["input_ids"])
            inputs["attention_mask"][i, :length] = 1
            inputs["labels"][i, :length] = torch.tensor(row["input_ids" if whole_text else "labels"])
        (model(**inputs).loss if loss is None else loss(model, inputs)).backward()
        optimizer.step()
        optimizer.zero_grad()
    return model


def naive_answer_logits(model: Any, inputs: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """The logits that predict the labelled tokens of a batch, [T, V], and those tokens, [T]."""
    logits = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits[:, :-1]
    targets = inputs["labels"][:, 1:]
    return logits[targets != -100], targets[targets != -100]
