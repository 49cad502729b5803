"""Quantisation: the weights rounded to 8 or 4 bits and back, which may undo the small changes of unlearning."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..model.linear_layers import by_output, linear_layers
from .arguments import as_tuple
from .base import Attack, Leak, Threat
from .rows import AttackedRows
from .target import Target
from .weights import leak, unchangeable

BITS = {"int8": 8, "int4": 4, "nf4": 4}
GROUP = 64  # inputs that share a scale


@dataclass(frozen=True)
class Quantize(Attack):
    """Rounds the weights of all linear layers to few bits, and calculates with what they stand for.

    An adapter is merged first. Embeddings, output head, norms and biases stay as they are, as bitsandbytes leaves
    them; so do experts of a mixture that are kept in one tensor. The round trip is calculated in fp32 on the model's
    device and needs no kernels: q(w) below takes the place of w, of which the scale s stays in fp32.

    - int8: s = max|w| / 127 of an output channel, q(w) = s round(w / s).
    - int4: s = max|w| / 7 of a group of 64 inputs of an output channel, q(w) = s round(w / s).
    - nf4: s = max|w| of such a group, q(w) = s times the nearest of the 16 values of `nf4_values`. Scales are not
      quantised in turn.

    Where the inputs are no multiple of 64, the last group of a channel is shorter.

    Args:
        kinds: of "int8", "int4" and "nf4".

    Paper: Zhang et al. 2024, https://arxiv.org/abs/2410.16454; nf4: Dettmers et al. 2023,
    https://arxiv.org/abs/2305.14314, appendix E.
    """

    kinds: tuple[str, ...] = ("int8", "int4", "nf4")

    name = "quantize"
    threat = Threat.WEIGHTS
    formula = "p(y) with w <- s round(w / s), s = max|w| / 127 (int8) or / 7 (int4); nf4: s times the nearest quantile"
    paper = "Zhang et al. 2024, arXiv:2410.16454"
    cost = "a forward of all rows for each kind"

    def __post_init__(self) -> None:
        super().__post_init__()
        as_tuple(self, "kinds", tuple(BITS).__contains__, f"one of {', '.join(BITS)}")

    def unfit(self, target: Target, rows: AttackedRows) -> str | None:
        return unchangeable(target)

    def run(self, target: Target, rows: AttackedRows) -> Iterable[Leak]:
        yield leak(target, rows, {"kind": "none", "bits": torch.finfo(target.model.dtype).bits})
        for kind in self.kinds:
            model = target.weights_copy()
            with torch.no_grad():
                for layer in linear_layers(model).values():
                    by_output(layer).copy_(round_trip(by_output(layer), kind))
            yield leak(target, rows, {"kind": kind, "bits": BITS[kind]}, model)


def round_trip(weight: Tensor, kind: str) -> Tensor:
    """Weights as they are after they were quantised: [outputs, inputs] -> the same shape.

    Args:
        weight: in fp32.
        kind: "int8", "int4" or "nf4".
    """
    weight = weight.contiguous()
    outputs, inputs = weight.shape
    if kind == "int8":
        return _rounded(weight, 127)
    groups = pad(weight, (0, -inputs % GROUP)).view(outputs, -1, GROUP)
    quantised = _rounded(groups, 7) if kind == "int4" else _nearest(groups)
    return quantised.view(outputs, -1)[:, :inputs]


def _largest(weight: Tensor) -> Tensor:
    """max|w| along the last dimension, [..., 1]; 1 where all are 0 and any scale will do."""
    largest = weight.abs().amax(-1, keepdim=True)
    return torch.where(largest > 0, largest, 1.0)


def _rounded(weight: Tensor, levels: int) -> Tensor:
    scale = _largest(weight) / levels
    return (weight / scale).round().clamp(-levels, levels) * scale


def _nearest(weight: Tensor) -> Tensor:
    values = torch.tensor(nf4_values(), dtype=weight.dtype, device=weight.device)
    scale = _largest(weight)
    return values[torch.bucketize(weight / scale, (values[1:] + values[:-1]) / 2)] * scale


@cache
def nf4_values() -> tuple[float, ...]:
    """The 16 values of NF4, ascending from -1 to 1: quantiles of the standard normal distribution over the largest.

    Eight quantiles of the upper half and seven of the lower one, at equal steps of probability between one half and
    1 - (1/32 + 1/30) / 2, and 0, which is kept exactly.
    """
    outermost = 1 - (1 / 32 + 1 / 30) / 2
    quantile = NormalDist().inv_cdf
    upper = [quantile(0.5 + (outermost - 0.5) * i / 8) for i in range(1, 9)]
    lower = [-quantile(0.5 + (outermost - 0.5) * i / 7) for i in range(7, 0, -1)]
    return tuple(value / upper[-1] for value in (*lower, 0.0, *upper))
