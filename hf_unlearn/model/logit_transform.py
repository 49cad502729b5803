"""What a model does to the logits of its head after the head: a scale and a cap, read from its configuration."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


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

    def backward(self, transformed: Tensor, gradient: Tensor) -> Tensor:
        """The gradient by the head's logits, given the transformed logits and the gradient by them."""
        if self.cap is not None:
            # d/dx c tanh(x / c) = 1 - tanh(x / c)^2
            gradient = gradient * (1 - (transformed / self.cap).square())
        return gradient if self.scale == 1 else gradient * self.scale


def configured_transform(owner: Any) -> LogitTransform:
    """The transform that a model's configuration speaks of.

    Args:
        owner: a causal language model of transformers.
    """
    values = {name: getattr(holder, name) for holder, name, _ in neutral_settings(owner)}
    scale = 1.0 if values.get("logit_scale") is None else values["logit_scale"]
    if values.get("logits_scaling") is not None:
        scale = 1 / values["logits_scaling"]
    return LogitTransform(scale, values.get("final_logit_softcapping"))


def neutral_settings(owner: Any) -> list[tuple[Any, str, float | None]]:
    """Where a model keeps its scale and its cap: what holds each, its name, and the value that changes no logit."""
    text = owner.config.get_text_config()
    places = [
        (text, "final_logit_softcapping", None),  # Gemma
        (text, "logits_scaling", 1.0),  # Granite, as a divisor
        (owner, "logit_scale", 1.0),  # Cohere
    ]
    return [(holder, name, neutral) for holder, name, neutral in places if hasattr(holder, name)]
