"""Norms and inner products of gradients over all weights of a model."""

from collections.abc import Sequence

import torch
from torch import Tensor


def inner_product(first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
    """<a, b> over all weights, each weight's part in fp32 (fp64 for fp64), the parts added up in fp64: a scalar.

    Weights may lie on several devices; the result lies on that of the first.
    """
    # Products of small 16-bit gradients vanish in their own type.
    wide = [torch.promote_types(a.dtype, torch.float32) for a in first]
    parts = [
        torch.dot(a.flatten().to(dtype), b.flatten().to(dtype))
        for a, b, dtype in zip(first, second, wide, strict=True)
    ]
    return torch.stack([part.double().to(parts[0].device) for part in parts]).sum()


def norm(gradients: Sequence[Tensor]) -> Tensor:
    """||g|| over all weights, in fp64: a scalar on the device of the first."""
    parts = [torch.linalg.vector_norm(gradient, dtype=torch.float64) for gradient in gradients]
    return torch.linalg.vector_norm(torch.stack([part.to(parts[0].device) for part in parts]))
