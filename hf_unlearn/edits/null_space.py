"""Ascent on the forget rows along directions that the retain rows do not use, so that layers answer these as ever."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..data.tokenized_row import TokenizedRow
from ..errors import require_choice
from ..model.output_head import output_head
from ..model.scoring import score_answers
from ..results.edit_report import Tried
from .ascent import Ascent, Gradients, ascend, drawn_rows, row_batches
from .base import Edit, EditData
from .layer_inputs import listening
from .matrices import Matrix, chosen_matrices, no_layers, require_pattern

MEAN, ABSOLUTE = "mean", "absolute"


@dataclass(frozen=True)
class NullSpace(Edit):
    """Gradient ascent whose updates are projected off the keys of the retain rows.

    Keys k are the inputs of a linear layer at all positions of the retain rows; C = mean k k^T. P = U U^T for the
    eigenvectors U of C whose eigenvalues are below the threshold. W <- W + rate G P, with G = grad_W mean_i min(nll_i,
    goal) of the forget rows, rate searched for so that step k of n brings the mean NLL k/n of the way to the goal.
    (W + rate G P) k = W k for keys in the span of the other eigenvectors; the mean square of what is changed for the
    retain keys is at most threshold * ||rate G P||^2. As no layer changes its answers to them, keys stay what they
    were in the layers above. Where retain keys fill every direction, or where forget rows use theirs, little can be
    done, and the search ends where it came nearest. Biases, norms, embeddings and the output head stay.

    Args:
        threshold: of an eigenvalue. The lower, the fewer directions are free and the longer steps along them become.
            Where keys leave directions empty, a low one protects; where they fill all, in small models, it does harm.
        relative_to: "mean", the mean eigenvalue of the layer; or "absolute" for eigenvalues as they are (published
            with 2e-2, for large models).
        steps: at most.
        share_of_level: the goal is this share of the level of unseen rows.
        retain_rows: that keys are of, and whose NLL is watched, drawn from all.
        layers: regular expression that is searched for in layers' names; None for all linear layers.

    Paper: Fang et al. 2024 (AlphaEdit), https://arxiv.org/abs/2410.02355, with the gradient in place of an edit of
    values.
    """

    threshold: float = 0.5
    relative_to: str = MEAN
    steps: int = 5
    share_of_level: float = 1.0
    retain_rows: int = 1000
    layers: str | None = None

    name = "null_space"
    formula = "W + rate (grad NLL_forget) P, P off the retain keys: eigenvalues of mean k k^T below the threshold"
    paper = "Fang et al. 2024, arXiv:2410.02355"
    reads = frozenset({"forget", "retain"})
    cost = (
        "one pass over retain_rows and some eight over the forget rows a step; in memory 4 bytes x (inputs^2 + 3 x "
        "inputs x outputs) of every linear layer, and an eigendecomposition of inputs^2 of each"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_positive("threshold", "share_of_level")
        require_choice("relative_to of null_space", self.relative_to, (MEAN, ABSOLUTE))
        self.require("steps", self.steps >= 1, "1 or above")
        self.require("retain_rows", self.retain_rows >= 1, "1 or above")
        require_pattern(self, self.layers)

    def unfit(self, model: PreTrainedModel, data: EditData) -> str | None:
        return no_layers(model, self.layers)

    def run(self, model: PreTrainedModel, data: EditData) -> list[Tried]:
        goal = self.share_of_level * data.require_level(self)
        matrices = chosen_matrices(model, self.layers)
        retain = drawn_rows(data.retain, self.retain_rows, data.seed)
        moments = key_moments(model, data, matrices, retain)
        projectors = {name: unused(moments.pop(name), self.threshold, self.relative_to) for name in list(moments)}

        def direction(gradients: Gradients) -> Gradients:
            # A layer that retain rows never run through has no keys: all of it is free.
            return {n: gradient @ projectors[n] if n in projectors else gradient for n, gradient in gradients.items()}

        return ascend(model, replace(data, retain=retain), matrices, Ascent(goal, self.steps), direction)


def key_moments(
    model: Any, data: EditData, matrices: Mapping[str, Matrix], rows: list[TokenizedRow]
) -> dict[str, Tensor]:
    """mean k k^T of each layer's inputs over all positions of rows, [inputs, inputs]."""
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}
    head = output_head(model)
    for batch in row_batches(model, data.questioner, rows):
        mask = batch["attention_mask"]

        def add(name: str, keys: Tensor, sent: Tensor | None, count: int = int(mask.sum())) -> None:
            keys = keys.flatten(0, 1)
            sums[name] = sums.get(name, 0) + keys.T @ keys
            counts[name] = counts.get(name, 0) + count

        with torch.no_grad(), listening(matrices, mask, add):
            score_answers(model, head, batch)
    return {name: total / counts[name] for name, total in sums.items()}


def unused(moment: Tensor, threshold: float, relative_to: str = MEAN) -> Tensor:
    """The projector, [inputs, inputs], on eigenvectors of a second moment whose eigenvalues are below a threshold."""
    values, vectors = torch.linalg.eigh((moment + moment.T) / 2)
    limit = threshold * values.mean() if relative_to == MEAN else threshold
    free = vectors[:, values < limit]
    return free @ free.T
