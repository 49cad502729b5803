"""The parts of a micro-batch on several ranks: as many on each that waits for the others, and one step after all."""

import contextlib
from collections.abc import Iterator, Sequence

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import nn

from ...data.batch import Batch, parts_of

_IDLE = "idle"  # key of a part that is there for the sake of other ranks


def agree_on_parts(batches: Sequence[Batch], accelerator: Accelerator, most: int) -> None:
    """Give each micro-batch of a step, in place, as many parts as it has on the rank where it has most.

    Under ZeRO and FSDP a rank waits in a forward or backward for those of all others. A rank that has fewer parts
    takes its smallest one again, with a loss of zero: while it does, it would have to wait for the others anyway.

    Args:
        batches: this rank's micro-batches of the step.
        accelerator: of the trainer.
        most: micro-batches that a step has at most; a last one of an epoch may have fewer.
    """
    own = torch.zeros(1, most, dtype=torch.long, device=accelerator.device)
    own[0, : len(batches)] = own.new_tensor([len(parts_of(batch)) for batch in batches])
    agreed = accelerator.gather(own).amax(0).tolist()
    for batch, number in zip(batches, agreed, strict=False):
        parts = parts_of(batch)
        if number > len(parts):
            idle = min(parts, key=lambda part: part["labels"].numel()) | {_IDLE: True}
            # The last one is of this rank's own rows: with it the ranks say whether their losses were finite.
            batch["parts"] = [*[idle] * (number - len(parts)), *map(dict, parts)]


def is_idle(part: Batch) -> bool:
    """Whether a part is there for the sake of other ranks alone, and counts for nothing."""
    return _IDLE in part


@contextlib.contextmanager
def before_last_part(accelerator: Accelerator, model: nn.Module) -> Iterator[None]:
    """A forward and backward inside adds to the gradient of the step and does not end it."""
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        due = accelerator.sync_gradients  # the engine steps inside of a backward where this holds
        accelerator.sync_gradients = False
        try:
            yield
        finally:
            accelerator.sync_gradients = due
    elif accelerator.distributed_type == DistributedType.FSDP:
        yield  # without a sync every rank would hold the gradient of all weights
    else:
        with accelerator.no_sync(model):  # ranks may have more or fewer parts: they meet at the last
            yield
