"""The log of a step: components of the loss summed on the device, and whether every loss was finite."""

import math
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import Tensor

from .ranks import sum_over_ranks


class ComponentLog:
    """Components of the loss by name, summed over micro-batches and ranks, averaged over steps when read.

    Args:
        names: every component, so that the ranks agree on them even when a micro-batch lacks one.
        device: where the sums live; reading is the only time that a step waits for it.
    """

    def __init__(self, names: list[str], device: torch.device) -> None:
        self._names, self._device = names, device
        self._norm: Any = None
        self._answer: _HostCopy | None = None  # to whether the last losses were finite, while it is on its way
        self.start()

    def start(self) -> None:
        """Forget what was summed up; the next read covers what comes from now on."""
        self._sums = torch.zeros(len(self._names), 2, device=self._device)
        self._nothing = self._sums.new_zeros(2)
        self._finite: Tensor | None = None  # whether the losses were, on this rank; None where there was none

    def add(self, components: dict[str, Tensor], loss: Tensor) -> None:
        """Add one micro-batch's contributions: for each component its value and its share of the step's items, [2]."""
        if components:  # all at once: a call of torch costs more than so few sums
            parts = [components.get(name, self._nothing) for name in self._names]
            self._sums = self._sums + torch.stack(parts).detach()
        finite = loss.detach().abs() < math.inf  # no NaN is
        self._finite = finite if self._finite is None else self._finite & finite

    def read(self, accelerator: Accelerator) -> dict[str, float]:
        """Mean of each component over the steps since the last read that had items of it; the same on every rank.

        The shares of one step add up to 1 over its micro-batches and ranks, so their sum counts the steps. A component
        that no step had is left out.
        """
        means = self.means(accelerator)
        self.start()
        return means

    def means(self, accelerator: Accelerator) -> dict[str, float]:
        """What `read` returns, without an end of what is summed up."""
        totals = sum_over_ranks(accelerator, self._sums.float()).tolist()
        return {name: value / steps for name, (value, steps) in zip(self._names, totals, strict=True) if steps}

    def send(self, accelerator: Accelerator, loss: Tensor | None = None) -> None:
        """Ask all ranks for the answer of `finite`, between a step's last forward and its backward.

        It arrives while the device is busy with the backward pass: asking for it after that would leave the device
        without work until the host has caught up.

        Args:
            accelerator: of the trainer.
            loss: whose backward comes next. A DeepSpeed engine steps inside it and looks at the gradient alone, which
                can be finite where the loss is not (a token of probability 0): it is made NaN there, on every rank.
        """
        broken = self._nothing[0] if self._finite is None else (~self._finite).float()
        broken = sum_over_ranks(accelerator, broken)
        if accelerator.distributed_type == DistributedType.DEEPSPEED and loss is not None and loss.requires_grad:
            loss.register_hook(lambda gradient: gradient.masked_fill(broken.to(gradient.device) > 0, math.nan))
        self._finite = None
        self._answer = _HostCopy(broken)

    def seen_norm(self, norm: Any) -> Any:
        """Remember the norm of the step's gradient, and give it back."""
        self._norm = norm
        return norm

    def finite_gradient(self) -> bool:
        """Whether the norm of the step's gradient was finite.

        The same answer on all ranks: it is the norm of the mean over them, or of what they hold together.
        """
        norm = getattr(self._norm, "full_tensor", lambda: self._norm)()
        return norm is None or math.isfinite(float(norm))

    def finite(self, accelerator: Accelerator) -> bool:
        """Whether every loss since the last call was finite on every rank; the same answer on all of them."""
        if self._answer is None:
            self.send(accelerator)
        assert self._answer is not None
        broken, self._answer = self._answer.wait(), None
        return broken == 0


class _HostCopy:
    """A copy of a number from the device to the host, which goes on while the host does something else."""

    def __init__(self, value: Tensor) -> None:
        self._value, self._event = value, None
        if value.device.type == "cuda":
            self._value = torch.empty_like(value, device="cpu", pin_memory=True)
            self._value.copy_(value, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record()

    def wait(self) -> float:
        """The number, once it is there; what the device was given after it is not waited for."""
        if self._event is not None:
            self._event.synchronize()
        return float(self._value)
