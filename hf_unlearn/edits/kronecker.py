"""Curvature of linear layers: K-FAC, its eigenvalues corrected (EK-FAC), or the diagonal alone."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from .layer_inputs import listening
from .matrices import Matrix

KINDS = ("ekfac", "kfac", "diagonal")


@dataclass(frozen=True)
class Curvature:
    """An approximation of a layer's block of the Fisher matrix: F = (Q_A x Q_G) diag(moments) (Q_A x Q_G)^T.

    Attributes:
        moments: the diagonal in that basis, [outputs, inputs].
        outputs: Q_G, the eigenvectors of the gradients' second moment, as columns; None for the identity.
        inputs: Q_A, the same of the layer's inputs.
    """

    moments: Tensor
    outputs: Tensor | None = None
    inputs: Tensor | None = None

    def solve(self, gradient: Tensor, damping: float) -> Tensor:
        """(F + l)^-1 gradient, l = damping * mean of the moments; 0 where no gradient ever came to the layer."""
        mean = self.moments.mean()
        rotated = self.rotate(gradient) / torch.where(mean > 0, self.moments + damping * mean, torch.inf)
        back = rotated if self.outputs is None else self.outputs @ rotated
        return back if self.inputs is None else back @ self.inputs.T

    def rotate(self, gradient: Tensor) -> Tensor:
        """Q_G^T gradient Q_A: gradients [..., outputs, inputs] in the basis of the moments."""
        turned = gradient if self.outputs is None else self.outputs.T @ gradient
        return turned if self.inputs is None else turned @ self.inputs


@dataclass(frozen=True)
class DrawnBatch:
    """Rows whose answers a model drew itself, ready to be differentiated.

    Attributes:
        mask: 1 at tokens and 0 at padding, [B, L].
        count: answer tokens in it.
        backward: runs the model, and differentiates the sum over rows and answer tokens of -log p(drawn token).
    """

    mask: Tensor
    count: int
    backward: Callable[[], None]


def curvatures(
    matrices: Mapping[str, Matrix], batches: Callable[[], Iterable[DrawnBatch]], kind: str
) -> dict[str, Curvature]:
    """The Fisher matrix of the mean over answer tokens, block by block of the linear layers.

    With g_r the gradient of row r's drawn tokens and T tokens in all, F = (1/T) sum_r g_r g_r^T: as the draws of one
    row are independent and their gradients 0 in the mean, this is the Gauss-Newton matrix in expectation. With a_t
    a layer's input at position t of any row (prompt and answer, no padding), d_t what the loss sends back to it there:

        A = mean_t a_t a_t^T,  G = (1/T) sum_t d_t d_t^T,  K-FAC: F ~ A x G
        EK-FAC: the same eigenvectors, moments_ij = (1/T) sum_r (Q_G^T g_r Q_A)_ij^2, which is F's own diagonal there
        diagonal: moments_ij = (1/T) sum_r (g_r)_ij^2

    Two passes over the batches for "ekfac", one for the others. Memory: inputs^2 + outputs^2 numbers a layer, and
    inputs * outputs for the moments. A layer that is called several times in a forward counts as so many rows.

    Sources: Martens and Grosse 1503.05671; George et al. 1806.03884; Grosse et al. 2308.03296.
    """
    bases = dict.fromkeys(matrices, (None, None)) if kind == "diagonal" else _factors(matrices, batches)
    if kind == "kfac":
        return {name: _kronecker(*factors) for name, factors in bases.items()}
    turned = {
        name: Curvature(torch.empty(0), _eigenvectors(outputs), _eigenvectors(inputs))
        for name, (inputs, outputs) in bases.items()
    }
    return _moments(matrices, batches, turned)


def _factors(
    matrices: Mapping[str, Matrix], batches: Callable[[], Iterable[DrawnBatch]]
) -> dict[str, tuple[Tensor, Tensor]]:
    """A [inputs, inputs] and G [outputs, outputs] of every layer that a gradient comes to."""
    inputs: dict[str, Tensor] = {}
    outputs: dict[str, Tensor] = {}
    positions: dict[str, int] = {}
    tokens = 0
    for batch in batches():

        def add(name: str, read: Tensor, sent: Tensor | None, mask: Tensor = batch.mask) -> None:
            assert sent is not None
            sent = sent.to(read.dtype).flatten(0, 1)
            read = read.flatten(0, 1)
            for sums, values in ((inputs, read), (outputs, sent)):
                sums[name] = sums.get(name, 0) + values.T @ values
            positions[name] = positions.get(name, 0) + int(mask.sum())

        with listening(matrices, batch.mask, add):
            batch.backward()
        tokens += batch.count
    return {name: (inputs.pop(name) / positions[name], outputs.pop(name) / tokens) for name in list(inputs)}


def _moments(
    matrices: Mapping[str, Matrix], batches: Callable[[], Iterable[DrawnBatch]], bases: Mapping[str, Curvature]
) -> dict[str, Curvature]:
    """The curvatures with their moments: mean squares of rows' gradients in the basis of each layer."""
    sums: dict[str, Tensor] = {}
    tokens = 0
    for batch in batches():

        def add(name: str, read: Tensor, sent: Tensor | None) -> None:
            assert sent is not None
            basis = bases[name]
            read = read if basis.inputs is None else read @ basis.inputs
            sent = sent.to(read.dtype)
            sent = sent if basis.outputs is None else sent @ basis.outputs
            # One row's gradient is the sum over its positions, which is squared after; rows one by one, for memory.
            squares = sum((back.T @ given).square() for back, given in zip(sent, read, strict=True))
            sums[name] = sums.get(name, 0) + squares

        with listening(matrices, batch.mask, add):
            batch.backward()
        tokens += batch.count
    return {
        name: Curvature(sums.pop(name) / tokens, basis.outputs, basis.inputs)
        for name, basis in bases.items()
        if name in sums
    }


def _kronecker(inputs: Tensor, outputs: Tensor) -> Curvature:
    (weights_in, basis_in), (weights_out, basis_out) = (torch.linalg.eigh(_even(f)) for f in (inputs, outputs))
    moments = torch.outer(weights_out.clamp(min=0), weights_in.clamp(min=0))
    return Curvature(moments, basis_out, basis_in)


def _eigenvectors(factor: Tensor | None) -> Tensor | None:
    return None if factor is None else torch.linalg.eigh(_even(factor)).eigenvectors


def _even(factor: Tensor) -> Tensor:
    """Symmetric to the last bit, which sums are not."""
    return (factor + factor.T) / 2
