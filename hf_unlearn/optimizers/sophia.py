"""Sophia: a second-order step, clipped element by element, with g^2 as the estimate of the Hessian's diagonal."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any, overload

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT

from ..errors import input_error, require_range, value_error

# Adam's names for the same two averages, so that tools which move or reshard optimizer states know them.
AVERAGES = ("exp_avg", "exp_avg_sq")


class Sophia(Optimizer):
    """Momentum divided by a diagonal curvature, no element moving further than `lr`.

    m <- beta1 m + (1 - beta1) g
    h <- beta2 h + (1 - beta2) g^2
    w <- w (1 - lr weight_decay) - lr clip(m / max(rho h, eps), -1, 1)

    No bias correction. h is the diagonal of the empirical Fisher, which SOUL puts in place of the Gauss-Newton one;
    the Sophia paper draws labels from the model for it and multiplies by the batch size. m / h does not cancel the
    loss's scale as Adam's m / sqrt(h) does: with gradients well below 1 / rho nearly every element is clipped, and the
    step is the sign of the momentum. So `lr` is chosen below AdamW's, as for sign methods (SOUL: 1e-5 for 2e-5).

    Averages have their weight's shape. For bf16 and fp16 weights they and the whole update are fp32, and a weight is
    rounded once a step. Memory for fp32 weights is AdamW's: two averages, and one more such buffer during the step;
    for bf16 and fp16 weights 8 bytes an element, and as much again during the step.

    In a Trainer: `optimizer_cls_and_kwargs=(Sophia, {"lr": 1e-5})`. Trainer takes `weight_decay` from its arguments
    but not `learning_rate`, so `lr` belongs into the mapping.

    Args:
        params: weights, or groups of them with arguments of their own.
        lr: the largest change of an element in a step, weight decay aside; 0 or above.
        betas: of the averages of g and of g^2, each in [0, 1).
        rho: the larger, the fewer elements are clipped; above 0.
        eps: floor of the denominator, above 0. 1e-12, the paper's, is far below gradients that mean something, so it
            slows none of them, while 0 / 0 stays 0 and a residue of 1e-17 does not become a step of full size.
        weight_decay: decoupled, as AdamW's; 0 or above.

    Raises:
        ValueError: an argument outside its range; a sparse gradient.

    Paper: Liu et al. 2023, https://arxiv.org/abs/2305.14342, algorithm 3; for unlearning with h = EMA(g^2): Jia et al.
    2024 (SOUL), https://arxiv.org/abs/2404.18239.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.95),
        rho: float = 0.04,
        eps: float = 1e-12,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, dict(lr=lr, betas=betas, rho=rho, eps=eps, weight_decay=weight_decay))

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Optimizer's, which is called for the first groups too, with the group's arguments checked."""
        _require_ranges({**self.defaults, **param_group})
        super().add_param_group(param_group)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Optimizer's, with the averages of bf16 and fp16 weights as exact as they were saved."""
        super().load_state_dict(state_dict)
        numbers = chain.from_iterable(group["params"] for group in state_dict["param_groups"])
        weights = chain.from_iterable(group["params"] for group in self.param_groups)
        for number, weight in zip(numbers, weights, strict=True):
            precision = _precision(weight)
            if number not in state_dict["state"] or weight.dtype == precision:
                continue
            # Optimizer has rounded them to the weight's dtype: a resumed run would not be the uninterrupted one.
            for name in AVERAGES:
                self.state[weight][name] = state_dict["state"][number][name].to(weight.device, precision)

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Move every weight that has a gradient; returns the closure's loss, if there is one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        # All groups are read before any moves, so that a refused gradient leaves the model as it was.
        work = [(group, weights) for group in self.param_groups for weights in self._alike(group)]
        for group, weights in work:
            self._move(weights, group)
        return loss

    def _alike(self, group: dict[str, Any]) -> list[list[Tensor]]:
        """A group's weights that have gradients, by device, dtype and kind: one kernel takes only what is alike."""
        alike = defaultdict(list)
        for weight in group["params"]:
            if weight.grad is None:
                continue
            if weight.grad.is_sparse:
                raise input_error(
                    expected="dense gradients",
                    got=f"a sparse gradient of a weight of shape {list(weight.shape)}",
                    why="the averages of elements without a gradient decay too, which a sparse one does not say",
                    fix="build the embedding with sparse=False, or train its weight with torch.optim.SparseAdam",
                )
            # Sharded weights (DTensor) and plain ones differ in kind.
            alike[weight.device, weight.dtype, weight.grad.dtype, type(weight)].append(weight)
        return list(alike.values())

    def _move(self, weights: list[Tensor], group: dict[str, Any]) -> None:
        """One step of weights that are alike, each line one kernel over all of them."""
        precision = _precision(weights[0])
        for weight in weights:
            if not self.state[weight]:
                zeros = {name: torch.zeros_like(weight, dtype=precision) for name in AVERAGES}
                self.state[weight].update(zeros)
        m, h = ([self.state[weight][name] for weight in weights] for name in AVERAGES)
        gradients = [weight.grad.to(precision) for weight in weights if weight.grad is not None]
        exact = [weight.to(precision) for weight in weights]  # the weights themselves, unless they are bf16 or fp16
        (beta1, beta2), lr = group["betas"], group["lr"]

        torch._foreach_lerp_(m, gradients, 1 - beta1)
        torch._foreach_mul_(h, beta2)
        torch._foreach_addcmul_(h, gradients, gradients, 1 - beta2)
        del gradients  # copies, for bf16 and fp16: memory for the next buffer
        # The quotient as a reciprocal in place, because a second buffer would be another copy of the model.
        update = torch._foreach_mul(h, group["rho"])
        torch._foreach_clamp_min_(update, group["eps"])
        torch._foreach_reciprocal_(update)
        torch._foreach_mul_(update, m)
        torch._foreach_clamp_min_(update, -1)
        torch._foreach_clamp_max_(update, 1)
        if group["weight_decay"]:
            torch._foreach_mul_(exact, 1 - lr * group["weight_decay"])
        torch._foreach_add_(exact, update, alpha=-lr)
        if weights[0].dtype != precision:
            for weight, moved in zip(weights, exact, strict=True):
                weight.copy_(moved)


def _precision(weight: Tensor) -> torch.dtype:
    """What a weight's averages and update are computed in."""
    # In fp16, g^2 is 0 below g = 1.7e-4; in bf16, an average with beta 0.95 stops a few percent before it arrives.
    return torch.float32 if weight.dtype in (torch.bfloat16, torch.float16) else weight.dtype


def _require_ranges(group: dict[str, Any]) -> None:
    """Raise unless every argument of a group is in its range."""
    betas = group["betas"]
    if not isinstance(betas, Sequence) or len(betas) != 2:
        raise value_error("betas of Sophia", "two numbers, each at least 0 and below 1", betas)
    for name, beta in zip(("betas[0]", "betas[1]"), betas, strict=True):
        require_range(f"{name} of Sophia", beta, at_least=0, below=1)
    for name in ("lr", "weight_decay"):
        require_range(f"{name} of Sophia", group[name], at_least=0)
    for name in ("rho", "eps"):
        require_range(f"{name} of Sophia", group[name], above=0)
