"""Stage 2b, an output head as a source of logits, forward and backward of a chunk. It picks no positions."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper
from torch import Tensor, nn

from .chunked_logits import softmax_dtype

Forward = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class LogitTransform:
    """What a model does to the logits of its head: z -> c tanh(s z / c), or s z without a cap.

    Args:
        scale: s (Cohere, Granite).
        cap: c (Gemma 2 and later), None for none.
    """

    scale: float = 1.0
    cap: float | None = None

    def __call__(self, logits: Tensor) -> Tensor:
        """The logits as the model puts them out."""
        scaled = logits if self.scale == 1 else logits * self.scale
        return scaled if self.cap is None else self.cap * torch.tanh(scaled / self.cap)

    def grad_logits(self, transformed: Tensor, gradient: Tensor) -> Tensor:
        """The gradient by the head's logits, given that by what became of them."""
        if self.cap is not None:
            gradient = gradient * (1 - (transformed / self.cap).square())
        return gradient if self.scale == 1 else gradient * self.scale


class LMHead:
    """An output head as it stands when this is made: its forward, its trained weights, the autocast around it.

    Args:
        module: the head; ZeRO-3 and FSDP must hold its weights together whenever it is used.
        forward: its forward.
        transform: from its logits to those of the model.
    """

    def __init__(self, module: nn.Module, forward: Forward, transform: LogitTransform) -> None:
        self._module, self._forward, self._transform = module, forward, transform
        self._weights = [weight for weight in module.parameters() if weight.requires_grad]
        self._device = next(module.parameters()).device.type
        enabled = torch.is_autocast_enabled(self._device)
        self._autocast: dict[str, Any] = {"enabled": enabled}
        if enabled:
            self._autocast["dtype"] = torch.get_autocast_dtype(self._device)

    def logits(self, inputs: Tensor) -> Tensor:
        """Logits of a chunk, [t, V]; without a graph. Scales and caps are computed in fp32."""
        with torch.no_grad():
            raw = self._raw(inputs)
            return raw if self._transform == LogitTransform() else self._transform(raw.to(softmax_dtype(raw.dtype)))

    def _raw(self, inputs: Tensor) -> Tensor:
        with torch.autocast(self._device, **self._autocast):
            return self._forward(inputs)

    def backward(self, inputs: Tensor, logits: Tensor, grad_logits: Tensor, gradients: list[Tensor | None]) -> Tensor:
        """The gradient by the inputs; those of the trained weights are added to `gradients`."""
        grad_logits = self._transform.grad_logits(logits, grad_logits)
        if type(self._module) is nn.Linear:
            return self._backward_linear(inputs, grad_logits, gradients)
        with torch.enable_grad():
            leaf = inputs.detach().requires_grad_()
            raw = self._raw(leaf)
        back, *found = torch.autograd.grad(raw, [leaf, *self._weights], grad_logits.to(raw.dtype), allow_unused=True)
        for total, part in zip(gradients, found, strict=True):
            if part is not None and total is not None:
                total += part
        return back

    def _backward_linear(self, inputs: Tensor, grad_logits: Tensor, gradients: list[Tensor | None]) -> Tensor:
        """The same for a plain linear layer: sums go straight into the gradients, which are as large as the layer."""
        weight: Tensor = self._module.weight  # type: ignore[assignment]
        dtype = self._autocast.get("dtype", weight.dtype)
        grad_logits, inputs_then = grad_logits.to(dtype), inputs.to(dtype)
        for trained, total in zip(self._weights, gradients, strict=True):
            if total is None:
                continue
            if trained.ndim == 1:  # the bias
                total += grad_logits.sum(0, dtype=total.dtype)
            elif total.dtype == dtype:
                total.addmm_(grad_logits.T, inputs_then)
            else:
                total += grad_logits.T @ inputs_then
        return (grad_logits @ weight.to(dtype)).to(inputs.dtype)


def without_disabled_adapters(module: nn.Module, forward: Forward) -> tuple[nn.Module, Forward]:
    """A head as it is now, and its forward: without its adapters where they are switched off, else itself.

    Whether they are is a matter of the moment, and its logits may be asked for later.
    """
    if isinstance(module, BaseTunerLayer) and module.disable_adapters:
        return module.get_base_layer(), module.get_base_layer().forward
    if isinstance(module, AuxiliaryTrainingWrapper) and module.disable_adapters:
        return module.original_module, module.original_module.forward
    return module, forward


def has_active_dropout(module: nn.Module) -> bool:
    """Whether a head drops out at random, and would drop something else when a chunk is computed again."""
    layers = [each for each in module.modules() if isinstance(each, nn.modules.dropout._DropoutNd)]
    return any(each.training and each.p > 0 for each in layers)


def restore_precision(found: Tensor, exact: Tensor | None) -> Tensor:
    """What came out of a model, with the values that its head put out: FSDP2, for one, rounds all that it puts out.

    Its gradient goes the way of what came out.
    """
    return found if exact is None or exact.dtype == found.dtype else _Unrounded.apply(found, exact)


class _Unrounded(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, found: Tensor, exact: Tensor) -> Tensor:
        ctx.dtype = found.dtype
        return exact.to(found.device)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad.to(ctx.dtype), None
