"""Sums over the ranks of a run."""

from accelerate import Accelerator
from torch import Tensor


def sum_over_ranks(accelerator: Accelerator, tensor: Tensor) -> Tensor:
    """The sum of every rank's tensor, on all of them; in one process the tensor itself, not a copy."""
    total: Tensor = tensor if accelerator.num_processes == 1 else accelerator.reduce(tensor, "sum")
    return total
