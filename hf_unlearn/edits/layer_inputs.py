"""What linear layers read and what comes back to them, position by position, while a model runs on a batch."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor

from ..errors import input_error
from ..model.forward_patching import output_hooks
from .matrices import Matrix

# (name, inputs [B, L, inputs] with 0 at padding, gradient by the outputs [B, L, outputs] or None without a graph)
Listener = Callable[[str, Tensor, Tensor | None], None]


@contextmanager
def listening(matrices: Mapping[str, Matrix], mask: Tensor, listener: Listener) -> Iterator[None]:
    """Inside, a listener is told of every call of the layers: in the backward pass, or at once without a graph.

    Args:
        matrices: of the layers; inputs are as these are multiplied by (`Matrix.inputs`).
        mask: 1 at tokens and 0 at padding, [B, L].
        listener: is given a layer's name, its inputs, and the gradient by its outputs.
    """
    hooks = []
    for name, matrix in matrices.items():

        def hear(module: object, given: tuple[Tensor, ...], output: Tensor, name=name, matrix=matrix) -> None:  # type: ignore[no-untyped-def]
            inputs = matrix.inputs(_by_row(given[0].detach(), mask, name)) * mask[..., None]
            if output.requires_grad:
                output.register_hook(lambda gradient: listener(name, inputs, _by_row(gradient, mask, name)))
            else:
                listener(name, inputs, None)

        hooks.append((matrix.layer, hear))
    with output_hooks(hooks):
        yield


def _by_row(values: Tensor, mask: Tensor, name: str) -> Tensor:
    """Values at the positions of a batch as [B, L, width]; some models lay the positions flat."""
    if values.shape[:-1].numel() != mask.numel():
        raise input_error(
            expected="linear layers that read one vector a position",
            got=f"{name}, which reads {tuple(values.shape)} of a batch of {tuple(mask.shape)} tokens",
            why="it cannot be said which row and which token its inputs belong to",
            fix="leave such layers out: layers='a regular expression of the names of the others'",
        )
    return values.reshape(*mask.shape, values.shape[-1])
