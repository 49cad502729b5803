"""What is computed of the logits of a chunk, a piece at a time: large tensors of each step then stay in the cache."""

import torch
from torch import Tensor

from .head_query import TokenReadout


def _pieces(count: int, piece: int) -> list[slice]:
    """Stretches of `piece` positions of so many."""
    piece = piece if count > 2 * piece else max(count, 1)  # the whole where there is little of it
    return [slice(start, min(start + piece, count)) for start in range(0, count, piece)]


def write_logps(z: Tensor, targets: Tensor, into: Tensor, piece: int) -> None:
    """log softmax(z_t)[y_t] of a chunk, [t]; log-probs of all tokens are there of a piece at a time."""
    for part in _pieces(len(z), piece):
        torch.gather(z[part].log_softmax(-1), -1, targets[part, None], out=into[part, None])


def write_values(
    readout: TokenReadout, z: Tensor, targets: Tensor, reference: Tensor | None, into: Tensor, piece: int
) -> None:
    """The values of a readout at a stretch of tokens, with what its function holds in between of a piece at a time."""
    for part in _pieces(len(z), piece):
        into[part] = readout.function(z[part], targets[part], None if reference is None else reference[part])


def softmax(z: Tensor, *, overwrite: bool) -> Tensor:
    """softmax(z), [t, V]; with `overwrite`, in the memory of z."""
    return torch.softmax(z, -1, out=z) if overwrite else z.softmax(-1)


def gradient(readout: TokenReadout, z: Tensor, targets: Tensor, reference: Tensor | None, piece: int) -> Tensor:
    """The derivative by the logits of a readout's values, one a token: [t, V]."""
    if len(z) > 2 * piece:
        whole = torch.empty_like(z)
        for part in _pieces(len(z), piece):
            own = None if reference is None else reference[part]
            whole[part] = gradient(readout, z[part], targets[part], own, piece)
        return whole
    known = None if readout.gradient is None else readout.gradient(z, targets, reference)
    return _differentiated(readout, z, targets, reference, z.new_ones(len(z))) if known is None else known


def add_gradient(
    grad_logits: Tensor,
    readout: TokenReadout,
    z: Tensor,
    targets: Tensor,
    reference: Tensor | None,
    upstream: Tensor,
    piece: int,
) -> None:
    """Add the gradient by the logits of a readout's values, times the gradient that comes from the loss."""
    for part in _pieces(len(z), piece):
        read = z[part], targets[part], None if reference is None else reference[part]
        known = None if readout.gradient is None else readout.gradient(*read)
        if known is None:
            grad_logits[part] += _differentiated(readout, *read, upstream[part])
        else:
            grad_logits[part].addcmul_(known, upstream[part, None])


def _differentiated(
    readout: TokenReadout, z: Tensor, targets: Tensor, reference: Tensor | None, upstream: Tensor
) -> Tensor:
    with torch.enable_grad():
        leaf = z.detach().requires_grad_()
        values = readout.function(leaf, targets, reference)
    return torch.autograd.grad(values, leaf, upstream)[0]
