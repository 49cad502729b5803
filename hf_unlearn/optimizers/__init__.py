"""Optimizers that torch does not have, for `optim` here and `optimizer_cls_and_kwargs` of any Trainer."""

from .sophia import Sophia

__all__ = ["Sophia"]
