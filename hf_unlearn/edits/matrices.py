"""The matrices of linear layers that an edit may change: chosen by name, read and written as [outputs, inputs]."""

import re
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from ..model.linear_layers import by_output, linear_layers
from .base import Edit


@dataclass(frozen=True)
class Matrix:
    """A linear layer's weights as one matrix [outputs, inputs], its bias, where it counts, as the last column.

    Attributes:
        layer: nn.Linear, or Conv1D, which holds its weights the other way round.
        with_bias: whether the bias is a column, as the weight of an input that is always 1.
    """

    layer: nn.Linear | Conv1D
    with_bias: bool = False

    @property
    def parameters(self) -> list[Tensor]:
        """Of the layer, those that the matrix is made of."""
        return [self.layer.weight, self.layer.bias] if self._has_column else [self.layer.weight]

    def read(self) -> Tensor:
        """A copy of the matrix, in fp32 or wider."""
        return self._joined([by_output(self.layer), self.layer.bias])

    def gradient(self, gradients: list[Tensor]) -> Tensor:
        """Gradients by `parameters` as one by the matrix, in fp32 or wider."""
        weight, *bias = gradients
        return self._joined([weight.T if isinstance(self.layer, Conv1D) else weight, *bias])

    def write(self, matrix: Tensor) -> None:
        """Set the layer's weights, rounded to their type here and nowhere before."""
        with torch.no_grad():
            if self._has_column:
                by_output(self.layer).copy_(matrix[:, :-1])
                self.layer.bias.copy_(matrix[:, -1])
            else:
                by_output(self.layer).copy_(matrix)

    def inputs(self, values: Tensor) -> Tensor:
        """What the matrix is multiplied by: the layer's inputs in fp32 or wider, [..., inputs], a 1 put after them."""
        wide = values.to(wide_dtype(values))
        return torch.cat([wide, torch.ones_like(wide[..., :1])], dim=-1) if self._has_column else wide

    @property
    def _has_column(self) -> bool:
        return self.with_bias and self.layer.bias is not None

    def _joined(self, parts: list[Tensor]) -> Tensor:
        weight = parts[0].detach()
        weight = weight.to(wide_dtype(weight), copy=True)
        return torch.cat([weight, parts[1].detach().to(weight.dtype)[:, None]], 1) if self._has_column else weight


def wide_dtype(values: Tensor) -> torch.dtype:
    """The type that edits calculate in: fp32, or fp64 for weights in fp64."""
    return torch.promote_types(values.dtype, torch.float32)


def chosen_layers(model: PreTrainedModel, pattern: str | None) -> dict[str, nn.Linear | Conv1D]:
    """The linear layers of a model whose names a regular expression finds a match in; all for None.

    The output head, and weights that embeddings share, are none of them.
    """
    layers = linear_layers(model)
    return layers if pattern is None else {name: layers[name] for name in layers if re.search(pattern, name)}


def chosen_matrices(model: PreTrainedModel, pattern: str | None, *, with_bias: bool = False) -> dict[str, Matrix]:
    """The matrices of the chosen layers by name; a layer that two names share is one of them once."""
    unique = {id(layer.weight): name for name, layer in reversed(chosen_layers(model, pattern).items())}
    layers = linear_layers(model)
    return {name: Matrix(layers[name], with_bias) for name in reversed(unique.values())}


def require_pattern(edit: Edit, pattern: str | None) -> None:
    """Raise for what is no regular expression."""
    try:
        re.compile(pattern or "")
    except re.error as error:
        raise edit.argument_error("layers", f"a regular expression ({error})") from None


def no_layers(model: PreTrainedModel, pattern: str | None) -> str | None:
    """Why a model has nothing to be edited, as the end of a sentence; None where it has."""
    if chosen_layers(model, pattern):
        return None
    name = "" if pattern is None else f" whose name matches {pattern!r}"
    return f"has no linear layer{name}, beside its output head"
