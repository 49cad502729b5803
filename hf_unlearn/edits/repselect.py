"""Ascent along what the forget rows' gradients do not share: the spectrum of each layer's gradient, turned over."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from peft import LoraConfig, LoraModel
from torch import Tensor
from transformers import PreTrainedModel

from ..model.fine_tuning import fine_tune
from ..model.score_rows import preserve_rng_state
from ..results.edit_report import Tried
from .ascent import Ascent, Gradients, ascend, forget_gradient
from .base import Edit, EditData
from .matrices import chosen_matrices, no_layers, require_pattern

_ADAPTER = "elicit"
_RANK = 8
_RATE = 1e-3


@dataclass(frozen=True)
class RepSelect(Edit):
    """RepSelect: gradient ascent without the directions that the gradients of most forget rows have in common.

    With G = grad_W mean_i min(nll_i, goal) = U S V^T of a linear layer, of one pass over the forget rows, both sides
    of the largest q components are divided by S / S_q (S_q: the smallest of them), so that S_k becomes S_q^2 / S_k,
    and what is smaller stays: G' = G - U_q (S - S_q^2 / S) V_q^T. Then W <- W + rate G', in fp32, `passes` times. What
    the rows have in common they share with other rows as well, and it is what relearning finds first.

    Args:
        q: components that are shrunk.
        share: of a layer's components that are shrunk, at most: where q is near its width, noise would remain.
        shrink: 1 as above; the components are multiplied by (S_q / S_k)^(2 shrink), so that 0 is plain ascent.
        rate: of every pass; None to search for the one that brings pass k of n k/n of the way.
        passes: over the forget rows, at most.
        share_of_level: the goal is this share of the level of unseen rows.
        elicit_steps: of AdamW (1e-3, batch 8) that a LoRA of rank 8 is trained by on the forget rows before each pass;
            the gradient is then taken with it, and it is dropped. For rows that a model hides more than it lacks them.
        layers: regular expression that is searched for in layers' names; None for all linear layers.

    Paper: Sondej et al. 2026, https://arxiv.org/abs/2606.17168. There gradients are summed over the set, so that a
    rate fits one size of set; here they are means over rows.
    """

    q: int = 512
    share: float = 0.25
    shrink: float = 1.0
    rate: float | None = None
    passes: int = 10
    share_of_level: float = 1.0
    elicit_steps: int = 0
    layers: str | None = None

    name = "repselect"
    formula = "W + rate (G - U_q (S - S_q^2/S) V_q^T), G = grad NLL_forget = U S V^T; NLL to share_of_level * level"
    paper = "Sondej et al. 2026, arXiv:2606.17168"
    cost = (
        "a pass: a gradient and some eight forwards of the forget rows, and a full SVD of each layer's gradient, in "
        "time that grows as width^3 and is seconds a layer from 4096 on; in memory a copy, a gradient and a step of "
        "all linear layers in fp32"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("q", self.q >= 1, "1 or above")
        self.require("share", 0 < self.share <= 1, "above 0 and at most 1")
        self.require_not_negative("shrink")
        if self.rate is not None:
            self.require_positive("rate")
        self.require_positive("share_of_level")
        self.require("passes", self.passes >= 1, "1 or above")
        self.require("elicit_steps", self.elicit_steps >= 0, "0 or above")
        require_pattern(self, self.layers)

    def unfit(self, model: PreTrainedModel, data: EditData) -> str | None:
        return no_layers(model, self.layers)

    def run(self, model: PreTrainedModel, data: EditData) -> list[Tried]:
        goal = self.share_of_level * data.require_level(self)
        matrices = chosen_matrices(model, self.layers)

        def gradient() -> Gradients:
            with elicited(model, data, self.elicit_steps):
                return forget_gradient(model, data, matrices, goal)

        def direction(gradients: Gradients) -> Gradients:
            return {name: without_shared(part, self._count(part), self.shrink) for name, part in gradients.items()}

        ascent = Ascent(goal, self.passes, self.rate, word="pass")
        return ascend(model, data, matrices, ascent, direction, gradient)

    def _count(self, gradient: Tensor) -> int:
        return min(self.q, max(1, round(self.share * min(gradient.shape))))


def without_shared(gradient: Tensor, q: int, shrink: float = 1.0) -> Tensor:
    """A matrix whose q largest components, at most its rank, are multiplied by (S_q / S_k)^(2 shrink)."""
    left, sizes, right = torch.linalg.svd(gradient, full_matrices=False)
    rounding = max(gradient.shape) * torch.finfo(sizes.dtype).eps * sizes[0]
    count = min(q, int((sizes > rounding).sum()))
    if count == 0:  # no gradient
        return gradient
    sizes = sizes[:count]
    taken = sizes * (1 - (sizes[-1] / sizes) ** (2 * shrink))
    return gradient - (left[:, :count] * taken) @ right[:count]


@contextmanager
def elicited(model: Any, data: EditData, steps: int) -> Iterator[None]:
    """Inside, a LoRA on all linear layers makes a model give the forget rows; the model is as it was afterwards."""
    if steps == 0:
        yield
        return
    weights = list(model.parameters())
    with preserve_rng_state():
        torch.manual_seed(data.seed)  # peft draws from the global generator
        tuner = LoraModel(model, LoraConfig(r=_RANK, lora_alpha=2 * _RANK, target_modules="all-linear"), _ADAPTER)
    try:
        for _ in fine_tune(model, data.forget, data.questioner.collator, steps=steps, rate=_RATE, seed=data.seed):
            pass
        for weight in weights:
            weight.requires_grad_(weight.is_floating_point())
        yield
    finally:
        tuner.unload()
        for weight in weights:
            weight.requires_grad_(weight.is_floating_point())
