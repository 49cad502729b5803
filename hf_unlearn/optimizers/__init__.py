"""Optimizers that torch does not have, for `optimizer_cls_and_kwargs` of any Trainer. No loss and no model."""

from .sophia import Sophia

__all__ = ["Sophia"]
