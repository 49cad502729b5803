"""An output head as a provider of logits: forward and backward of one chunk, also after the model's forward."""

from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper
from torch import Tensor, nn

from .forward_patching import Forward
from .logit_provider import softmax_dtype
from .logit_transform import LogitTransform


class LMHead:
    """An output head as it stands when this is made: its forward, its trained weights, the autocast around it.

    Args:
        module: the head; ZeRO-3 and FSDP must hold its weights together whenever it is used.
        forward: its own forward, not what stands in for it during a call: the backward pass runs this one.
        transform: from its logits to those of the model.

    Attributes:
        weights: its own that are trained.
    """

    def __init__(self, module: nn.Module, forward: Forward, transform: LogitTransform) -> None:
        self._module, self._forward, self._transform = module, forward, transform
        weights = list(module.parameters())
        self.weights = [weight for weight in weights if weight.requires_grad]
        self._device = weights[0].device.type
        # The backward pass runs outside of autocast: chunks that are computed again there must be rounded the same.
        enabled = torch.is_autocast_enabled(self._device)
        self._autocast: dict[str, Any] = {"enabled": enabled}
        if enabled:
            self._autocast["dtype"] = torch.get_autocast_dtype(self._device)

        # By type, not isinstance: an adapter layer or a quantised one may be a subclass with a forward of its own, and
        # hooks of accelerate, which fetch weights from elsewhere, replace the forward.
        plain = type(module) is nn.Linear and getattr(forward, "__func__", None) is nn.Linear.forward
        self.overwritable = plain and transform.cap is None  # the cap's derivative is had from capped logits

    def logits(self, inputs: Tensor, out: Tensor | None = None) -> Tensor:
        """Logits of a chunk, [t, V]; without a graph. Scales and caps are computed in fp32."""
        with torch.no_grad():
            if out is not None and self._fits(inputs, out):
                assert isinstance(self._module, nn.Linear)
                weight, bias, out = self._module.weight, self._module.bias, out[: len(inputs)]
                if bias is None:
                    return torch.mm(inputs, weight.t(), out=out)
                return torch.addmm(bias, inputs, weight.t(), out=out)
            raw = self._raw(inputs)
            return raw if self._transform == LogitTransform() else self._transform(raw.to(softmax_dtype(raw.dtype)))

    def _fits(self, inputs: Tensor, out: Tensor) -> bool:
        """Whether logits of these inputs can be written there as the head itself would put them out."""
        same = inputs.dtype == self._module.weight.dtype == out.dtype and len(out) >= len(inputs)
        return self.overwritable and same and not self._autocast["enabled"] and self._transform == LogitTransform()

    def _raw(self, inputs: Tensor) -> Tensor:
        if not self._autocast["enabled"] and not torch.is_autocast_enabled(self._device):
            return self._forward(inputs)
        with torch.autocast(self._device, **self._autocast):
            return self._forward(inputs)

    def backward(self, inputs: Tensor, logits: Tensor, grad_logits: Tensor, gradients: list[Tensor | None]) -> Tensor:
        """The gradient by the inputs; those of the trained weights are added to `gradients`."""
        grad_logits = self._transform.backward(logits, grad_logits)
        # By type, not isinstance: an adapter layer or a quantised one may be a subclass with a forward of its own.
        if type(self._module) is nn.Linear:
            return self._backward_linear(inputs, grad_logits, gradients)
        # Any other head is differentiated by autograd, a chunk at a time, as if the chunk were the whole input.
        with torch.enable_grad():
            leaf = inputs.detach().requires_grad_()
            raw = self._raw(leaf)
        grad_inputs, *grad_weights = torch.autograd.grad(
            raw, [leaf, *self.weights], grad_logits.to(raw.dtype), allow_unused=True
        )
        for total, part in zip(gradients, grad_weights, strict=True):
            if part is not None and total is not None:
                total += part
        return grad_inputs

    def _backward_linear(self, inputs: Tensor, grad_logits: Tensor, gradients: list[Tensor | None]) -> Tensor:
        """The same for a plain linear layer: sums go straight into the gradients, which are as large as the layer."""
        weight: Tensor = self._module.weight  # type: ignore[assignment]
        dtype = self._autocast.get("dtype", weight.dtype)
        grad_logits, rounded = grad_logits.to(dtype), inputs.to(dtype)
        for trained, total in zip(self.weights, gradients, strict=True):
            if total is None:
                continue
            if trained.ndim == 1:  # the bias
                total += grad_logits.sum(0, dtype=total.dtype)
            elif total.dtype == dtype:
                total.addmm_(grad_logits.T, rounded)
            else:
                # addmm_ takes one type only; the product is rounded once, the sum over chunks is not.
                total += grad_logits.T @ rounded
        return (grad_logits @ weight.to(dtype)).to(inputs.dtype)


def without_disabled_adapters(module: nn.Module, forward: Forward) -> tuple[nn.Module, Forward]:
    """A head as it is now, and its forward: without its adapters where they are switched off, else itself.

    Adapters may be on again when the logits are asked for: the reference is read with them off, and its logits are
    computed inside the policy's forward with them on.
    """
    if isinstance(module, BaseTunerLayer) and module.disable_adapters:
        return module.get_base_layer(), module.get_base_layer().forward
    if isinstance(module, AuxiliaryTrainingWrapper) and module.disable_adapters:
        return module.original_module, module.original_module.forward
    return module, forward


def has_active_dropout(module: nn.Module) -> bool:
    """True if the head has active dropout; its logits cannot then be recomputed in the backward pass."""
    layers = [layer for layer in module.modules() if isinstance(layer, nn.modules.dropout._DropoutNd)]
    return any(layer.training and layer.p > 0 for layer in layers)


def restore_precision(output: Tensor, exact: Tensor | None) -> Tensor:
    """Replaces a model output that FSDP2 cast to low precision by the exact values.

    Gradients flow through the original, which FSDP2 has hung its backward hooks on.
    """
    return output if exact is None or exact.dtype == output.dtype else _RestoredPrecision.apply(output, exact)


class _RestoredPrecision(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, output: Tensor, exact: Tensor) -> Tensor:
        ctx.dtype = output.dtype
        return exact.to(output.device)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad.to(ctx.dtype), None
