"""Where the logits of positions come from: tensors that are held whole, or an output head that makes them."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


def softmax_dtype(dtype: torch.dtype) -> torch.dtype:
    """fp32, or fp64 where the model itself is in fp64."""
    return torch.promote_types(dtype, torch.float32)


class LogitProvider(Protocol):
    """Where the logits of positions come from: tensors that are there, or an output head.

    Attributes:
        overwritable: whether what `logits` gives may be overwritten, also before it is handed to `backward`.
    """

    @property
    def overwritable(self) -> bool: ...

    def logits(self, inputs: Tensor, out: Tensor | None = None) -> Tensor:
        """Logits of a chunk, [t, V], in the precision that the model puts out; without a graph.

        Args:
            inputs: of the chunk.
            out: logits of another chunk, of no fewer positions, that are needed no more: their memory may be used.
        """
        ...

    def backward(self, inputs: Tensor, logits: Tensor, grad_logits: Tensor, gradients: list[Tensor | None]) -> Tensor:
        """The gradient by `inputs` of a chunk, given its logits and that by them; the weights' go to `gradients`."""
        ...


@dataclass(frozen=True)
class DenseLogits:
    """Logits that are held whole, [T, V]: those of a model as its inputs, or those of a reference as `tensor`."""

    tensor: Tensor | None = None
    overwritable = False

    def logits(self, inputs: Tensor, out: Tensor | None = None) -> Tensor:
        """The inputs themselves."""
        return inputs

    def backward(self, inputs: Tensor, logits: Tensor, grad_logits: Tensor, gradients: list[Tensor | None]) -> Tensor:
        """The gradient of the logits itself."""
        return grad_logits

    def at(self, part: slice, logits: Tensor) -> Tensor:
        """Those of a stretch of tokens."""
        assert self.tensor is not None
        return self.tensor[part].to(logits.dtype)
