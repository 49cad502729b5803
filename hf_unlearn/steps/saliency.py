"""Only the weights that matter for the forget set are trained."""

from dataclasses import dataclass

import torch
from torch import Tensor

from .base import FollowsStep, Gradients, MasksGradient, MeasuresTrainingSet, Sides, State, Weights


@dataclass(frozen=True)
class SaliencyMask(MeasuresTrainingSet, MasksGradient, FollowsStep):
    """A fixed mask over the trainable weights: those in the top share of a score move, the others stay bit for bit.

    score "grad" (SalUn): |g_f|; score "wagle": |(theta - g_r / mu) g_f|, theta the weights before unlearning, g_f and
    g_r the gradients of the weighted forget and retain side over the pairs of one epoch at theta. The `keep` share of
    all trainable weights with the highest score, ranked together, is trained. With keep 1 it is no mask.

    Before the first step it costs a forward and backward of every training pair, and from then on a copy of the
    weights that stay. An adapter that starts at zero (LoRA's B) has no gradient in its other half (A), which the mask
    leaves out first.

    Args:
        score: "grad" or "wagle".
        keep: share of the weights that are trained, above 0 and at most 1.
        mu: WAGLE's constant in place of the Hessian's diagonal, above 0.

    Paper: Fan et al. 2023 (SalUn), https://arxiv.org/abs/2310.12508; Jia et al. 2024 (WAGLE),
    https://arxiv.org/abs/2410.17509.
    """

    score: str = "grad"
    keep: float = 0.3
    mu: float = 1.0

    name = "saliency"
    formula = "train the top share of |g_f| (grad) or |(theta - g_r/mu) g_f| (wagle)"
    paper = "Fan et al. 2023, arXiv:2310.12508; Jia et al. 2024, arXiv:2410.17509"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("score", self.score in ("grad", "wagle"), "'grad' or 'wagle'")
        self.require("keep", 0 < self.keep <= 1, "above 0 and at most 1")
        self.require_positive("mu")

    def scores(self, weights: Weights, forget: Gradients, retain: Gradients) -> list[Tensor]:
        """The score of every weight, 0 or above."""
        if self.score == "grad":
            return [g.abs() for g in forget]
        return [
            ((theta.detach() - g_r / self.mu) * g_f).abs()
            for theta, g_f, g_r in zip(weights, forget, retain, strict=True)
        ]

    def measure(self, weights: Weights, sides: Sides) -> State:
        masks = top_share(self.scores(weights, *sides()), self.keep)
        # Only what stays is kept: a copy of every weight would be thrown away but for these.
        frozen = [weight.detach()[~mask].clone() for weight, mask in zip(weights, masks, strict=True)]
        return {"masks": masks, "frozen": frozen}

    def after_backward(self, state: State, weights: Weights) -> None:
        for weight, mask in zip(weights, state["masks"], strict=True):
            if weight.grad is not None:
                weight.grad.masked_fill_(~mask, 0)

    def after_step(self, state: State, weights: Weights) -> None:
        # Weight decay, and optimizers that mix the entries of a matrix, move a weight without a gradient too.
        with torch.no_grad():
            for weight, mask, frozen in zip(weights, state["masks"], state["frozen"], strict=True):
                weight.masked_scatter_(~mask, frozen)


def top_share(scores: list[Tensor], keep: float) -> list[Tensor]:
    """Masks of exactly the `keep` share (rounded, at least one) of all entries with the highest scores."""
    flat = torch.cat([score.flatten() for score in scores])
    chosen = flat.topk(max(1, round(keep * len(flat))), sorted=False).indices
    mask = torch.zeros_like(flat, dtype=torch.bool)
    mask[chosen] = True
    parts = mask.split([score.numel() for score in scores])
    return [part.view(score.shape) for part, score in zip(parts, scores, strict=True)]
