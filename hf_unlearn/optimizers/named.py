"""The optimizers that `optim` accepts by name beside Trainer's own, with their `optim_args`."""

from typing import Any

import torch
from torch.optim import Optimizer
from transformers import TrainingArguments

from ..errors import require_choice, value_error
from .sophia import Sophia

OPTIMIZERS: dict[str, type[Optimizer]] = {"sophia": Sophia}

# Arguments of Sophia that `optim_args` may set, as Trainer's "name=value,name=value"; beta1 and beta2 are its `betas`.
_ARGUMENTS = ("beta1", "beta2", "rho", "eps")


def named_optimizer(args: TrainingArguments) -> tuple[type[Optimizer], dict[str, Any]] | None:
    """The class and arguments of `args.optim`, learning rate included; None for an optimizer of Trainer's own.

    Raises:
        ValueError: `optim_args` that are not numbers, not in range, or not arguments of the optimizer.
    """
    optimizer = OPTIMIZERS.get(str(args.optim))
    if optimizer is None:
        return None
    given = dict(_numbers(args.optim_args or ""))
    betas = {"betas": (given.pop("beta1", 0.9), given.pop("beta2", 0.95))}
    arguments = {"lr": args.learning_rate, **betas, **given}
    optimizer([torch.zeros(1)], **arguments)  # raises for values out of range, before anything is loaded
    return optimizer, arguments


def _numbers(text: str) -> list[tuple[str, float]]:
    pairs = [part.partition("=") for part in text.replace(" ", "").split(",") if part]
    numbers = []
    for name, _, value in pairs:
        require_choice("the name in optim_args", name, _ARGUMENTS)
        try:
            numbers.append((name, float(value)))
        except ValueError:
            raise value_error(
                f"{name} in optim_args", "a number", value, "for example optim_args='rho=0.04,beta2=0.95'"
            ) from None
    return numbers
