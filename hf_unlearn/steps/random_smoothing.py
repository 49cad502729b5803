"""The forget gradient averaged over noisy weights."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from .base import SIXTEEN_BITS, WHOLE_GRADIENTS, ChangesForgetGradient, Gradients, Weights, copied, restore


@dataclass(frozen=True)
class RandomSmoothing(ChangesForgetGradient):
    """Randomised smoothing: the gradient of the forget loss averaged over a neighbourhood.

    g_f <- (1/n) sum_i grad L_forget(theta + noise_i), noise_i ~ N(0, sigma^2) on every trainable weight; the retain
    gradient is that at theta. The noise is drawn from (seed, step, i) alone: the same on every rank and after a
    resume. Weights are restored from a copy, bit for bit; the forget loss that is logged is that of the first noise.
    Costs n forwards and backwards of the forget rows instead of one.

    Args:
        sigma: standard deviation of the noise, 0 or above.
        samples: n, a whole number of at least 1.
        seed: of the noise.

    Paper: Fan et al. 2025, https://arxiv.org/abs/2502.05374.
    """

    sigma: float = 0.001
    samples: int = 3
    seed: int = 0

    name = "random_smoothing"
    incompatible_with = {**WHOLE_GRADIENTS, **SIXTEEN_BITS}
    formula = "g_f <- (1/n) sum_i grad L_forget(theta + N(0, sigma^2)_i)"
    paper = "Fan et al. 2025, arXiv:2502.05374"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_not_negative("sigma")
        self.require("samples", self.samples >= 1, "a whole number of at least 1")
        self.require("seed", self.seed >= 0, "a whole number, 0 or above")

    def noises(self, weights: Weights, step: int, sample: int) -> Iterator[Tensor]:
        """The noise of one sample of one step, one tensor for each weight, drawn where the weights are."""
        generator = torch.Generator(weights[0].device).manual_seed(_mixed(self.seed, step, sample))
        for weight in weights:
            noise = torch.randn(weight.shape, generator=generator, device=generator.device)
            yield self.sigma * noise.to(weight.device, weight.dtype)

    def forget_gradient(self, gradient: Callable[[], Gradients], weights: Weights, step: int) -> Gradients:
        before = copied(weights)
        total: Gradients | None = None
        try:
            for sample in range(self.samples):
                restore(weights, before)
                with torch.no_grad():
                    for weight, noise in zip(weights, self.noises(weights, step, sample), strict=True):
                        weight.add_(noise)
                noisy = gradient()
                total = noisy if total is None else [a + b for a, b in zip(total, noisy, strict=True)]
        finally:
            restore(weights, before)
        assert total is not None
        return [summed / self.samples for summed in total]


def _mixed(*parts: int) -> int:
    """One seed out of several numbers, without collisions between neighbours."""
    mixed = 0
    for part in parts:
        mixed = (mixed * 1_000_003 + part + 1) % (1 << 63)
    return mixed
