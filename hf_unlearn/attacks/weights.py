"""What the attacks on weights share: which models can be changed, their linear layers, the leak of a changed copy."""

from collections.abc import Collection

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTuner
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

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


def linear_layers(model: PreTrainedModel) -> dict[str, nn.Linear | Conv1D]:
    """The linear layers of a model by name, without its output head, and without weights that embeddings share.

    Experts of a mixture that are kept in one tensor are no linear layers.
    """
    head = model.get_output_embeddings()
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and module is not head and id(module.weight) not in embeddings
    }


def by_output(layer: nn.Linear | Conv1D) -> Tensor:
    """A view of a linear layer's weights as [outputs, inputs], the other way round in GPT-2's layers."""
    weight = layer.weight.detach()
    return weight.T if isinstance(layer, Conv1D) else weight


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
