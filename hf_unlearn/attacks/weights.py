"""What the attacks on weights share: which models can be changed, the leak of a changed copy, a threshold."""

from collections.abc import Collection

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTuner
from torch import Tensor, nn

from .base import Leak, Setting
from .rows import AttackedRows
from .target import Target


def unchangeable(target: Target) -> str | None:
    """Why a model's weights cannot be changed, as the end of a sentence; None where they can."""
    if getattr(target.model, "is_quantized", False):
        return "its weights are quantised already"
    if isinstance(target.model, PeftModel) and not isinstance(target.model.base_model, BaseTuner):
        return "its adapter is a prompt, which cannot be merged into weights"
    return None


def leak(target: Target, rows: AttackedRows, setting: Setting, model: nn.Module | None = None) -> Leak:
    """What a changed copy of the model gives away of every row, and what is left of its utility.

    Args:
        model: the copy; the target's own model, with which nothing was done, if None.
    """
    return Leak(setting, target.probabilities(rows.rows, model), target.utility(model))


def magnitude_threshold(weights: Collection[Tensor], share: float) -> Tensor:
    """The size of the round(share * n)-th smallest of n weights, which lie in several tensors; -1 where that is none.

    Exact, and without a copy of the weights: numbers above 0 are ordered as the 31 bits that they are kept in, and the
    threshold is built bit by bit from the highest.

    Args:
        weights: in fp32, on any devices.
        share: of all of them, 0 to 1.
    """
    wanted = round(share * sum(weight.numel() for weight in weights))
    low, high = -1, 0x7F800000  # infinity; fewer than `wanted` weights are of the size of `low` or smaller
    while high - low > 1:
        middle = (low + high) // 2
        size = _number(middle)
        below = sum(int((weight.abs() <= size.to(weight.device)).sum()) for weight in weights)
        low, high = (low, middle) if below >= wanted else (middle, high)
    return _number(high) if wanted else torch.tensor(-1.0)


def _number(bits: int) -> Tensor:
    return torch.tensor(bits, dtype=torch.int32).view(torch.float32)
