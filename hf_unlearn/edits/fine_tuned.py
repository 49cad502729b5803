"""Fine-tuning inside an edit: by passes over rows, in fp32, refused where it diverges."""

import copy
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from transformers import PreTrainedModel

from ..data.tokenized_row import TokenizedRow
from ..errors import input_error
from ..model.fine_tuning import BatchLoss, answer_nll, fine_tune
from ..progress import progress
from .base import EditData

WARMUP_SHARE = 0.05  # of the steps, where the rate has a schedule
SCHEDULES = ("constant", "cosine", "linear")


def train(
    model: Any,
    rows: Sequence[TokenizedRow],
    data: EditData,
    *,
    epochs: float,
    rate: float,
    batch: int,
    schedule: str = "constant",
    shuffle: bool = True,
    loss: BatchLoss = answer_nll,
) -> None:
    """Train all weights of a model that require gradients, in place (`fine_tune`).

    Args:
        model: in fp32.
        rows: tokenised.
        data: of the edit, for its collator and seed.
        epochs: passes over the rows; the last batch is filled up with rows of a further one.
        rate: learning rate, the highest of a schedule.
        batch: rows of a step.
        schedule: "constant", or "cosine" or "linear" with a warm-up over the first twentieth.
        shuffle: False for the rows in the order in which they are given.
        loss: of a batch.

    Raises:
        ValueError: a loss that is not finite.
    """
    steps = math.ceil(epochs * len(rows) / min(batch, len(rows)))
    warmup = 0 if schedule == "constant" else round(WARMUP_SHARE * steps)
    done = fine_tune(
        model,
        rows,
        data.questioner.collator,
        steps=steps,
        batch=batch,
        rate=rate,
        seed=data.seed,
        schedule=schedule,
        warmup=warmup,
        shuffle=shuffle,
        loss=loss,
    )
    taken = sum(1 for _ in progress(done, "fine-tuning", total=steps))
    if taken < steps:
        raise input_error(
            expected="a finite loss in every step of a fine-tuning",
            got=f"another one in step {taken + 1} of {steps}",
            why="the weights that come of it are of no use; the model keeps those that it had",
            fix=f"take a lower rate than {rate:g}",
        )


@contextmanager
def full_precision(model: PreTrainedModel) -> Iterator[PreTrainedModel]:
    """The model to calculate with inside: itself where it is in fp32, else a copy that is written back at the end.

    Rounded to 16 bits once, and not after every step: a step of training is mostly smaller than a 16-bit weight's
    last bit.
    """
    if all(weight.element_size() >= torch.float32.itemsize for weight in floating(model)):
        yield model
        return
    wide = float_copy(model)
    yield wide
    with torch.no_grad():
        for weight, trained in zip(floating(model), floating(wide), strict=True):
            weight.copy_(trained)


def float_copy(model: PreTrainedModel) -> PreTrainedModel:
    """A copy of a model in fp32 (fp64 where it is in that), all of its weights trainable, without dropout."""
    double = any(weight.dtype == torch.float64 for weight in floating(model))
    wide: PreTrainedModel = copy.deepcopy(model).to(torch.float64 if double else torch.float32)
    return wide.requires_grad_(True).eval()


def floating(model: Any) -> list[torch.nn.Parameter]:
    """The weights of a model that are numbers with a fraction; tied ones once."""
    return [weight for weight in model.parameters() if weight.is_floating_point()]
