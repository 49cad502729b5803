"""Task vectors: the way that weights went in a fine-tuning, added to weights with a scale.

Kept as its two ends, in main memory, so that sums are exact: everything is computed in fp64, tensor by tensor, and
rounded once to the type of the weights.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers import PreTrainedModel

from ..data.tokenized_row import TokenizedRow
from ..model.new_adapter import with_new_adapter
from .base import EditData
from .fine_tuned import float_copy, train
from .moved import copied_weights


@dataclass(frozen=True)
class Vector:
    """A direction in the space of weights, end - start.

    Attributes:
        end: by name of the weight; a weight that is not in it does not move.
        start: the same; nothing for a vector that `end` holds whole.
    """

    end: Mapping[str, Tensor]
    start: Mapping[str, Tensor] = field(default_factory=dict)

    def of(self, name: str) -> Tensor | None:
        """The part of a weight, in fp64; None where it does not move."""
        if name not in self.end:
            return None
        end = self.end[name].double()
        return end - self.start[name].double() if name in self.start else end

    def relative_size(self, weights: Mapping[str, Tensor]) -> float:
        """||vector|| / ||weights||."""
        parts = (self.of(name) for name in self.end)
        moved = sum(float(part.square().sum()) for part in parts if part is not None)
        size = sum(float(weight.double().square().sum()) for weight in weights.values())
        return (moved / size) ** 0.5 if size else math.inf


def fine_tuned_vector(
    start: PreTrainedModel, rows: Sequence[TokenizedRow], data: EditData, *, rank: int | None = None, **training: Any
) -> tuple[Vector, PreTrainedModel]:
    """The vector of a fine-tuning that begins at a model, and the fine-tuned model.

    Args:
        start: left as it is.
        rows: tokenised.
        data: of the edit.
        rank: of a LoRA on all linear layers but the head, merged for the model; None for all weights.
        training: arguments of `train`.
    """
    wide = float_copy(start)
    if rank is None:
        train(wide, rows, data, **training)
        return Vector(copied_weights(wide), copied_weights(start)), wide
    adapted = with_new_adapter(wide, rank, data.seed)
    train(adapted, rows, data, **training)
    layers = {name: layer for name, layer in adapted.get_base_model().named_modules() if isinstance(layer, LoraLayer)}
    (adapter,) = adapted.active_adapters
    # scaling B A, the other way round for GPT-2's layers
    deltas = {f"{name}.weight": layer.get_delta_weight(adapter).detach().cpu() for name, layer in layers.items()}
    return Vector(deltas), adapted.merge_and_unload()


def add_vectors(model: nn.Module, origin: Mapping[str, Tensor], terms: Sequence[tuple[float, Vector]]) -> None:
    """weights <- origin + sum_i scale_i vector_i, in fp64, rounded once.

    Args:
        model: whose weights are set, all of them.
        origin: by name, in main memory.
        terms: (scale, vector).
    """
    with torch.no_grad():
        for name, weight in model.named_parameters():
            total = origin[name]
            for scale, vector in terms:
                part = vector.of(name) if scale else None
                total = total if part is None else total.double() + scale * part
            weight.copy_(total)
