"""Gradients that overflow: what mixed precision and DeepSpeed do about them by themselves."""

from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import nn


def searches_scale(accelerator: Accelerator) -> bool:
    """Whether a gradient that is not finite is a try of fp16 at its scale, and is dropped by the scaler itself.

    The scale is halved at each of them. Once it multiplies no more, no overflow is the scaler's doing.
    """
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        return accelerator.mixed_precision == "fp16"  # it raises an error of its own at the smallest scale
    scaler = accelerator.scaler
    return scaler is not None and scaler.is_enabled() and scaler.get_scale() > 1.0


def look_for_overflow(model: nn.Module) -> None:
    """Have a DeepSpeed engine look whether a gradient is finite, which ZeRO-1 and 2 leave out in bf16.

    Args:
        model: wrapped.
    """
    optimizer = getattr(model, "optimizer", None)  # of an engine
    if optimizer is not None and hasattr(optimizer, "check_grad_overflow"):
        optimizer.check_grad_overflow = True
