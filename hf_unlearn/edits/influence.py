"""Gauss-Newton steps uphill on the forget rows' NLL, measured by the curvature of the retain rows."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from transformers import PreTrainedModel

from ..data.tokenized_row import TokenizedRow
from ..errors import require_choice
from ..results.edit_report import Tried
from .ascent import Ascent, Gradients, ascend, drawn_rows
from .base import Edit, EditData
from .drawn_answers import drawn_batches, with_drawn_answers
from .kronecker import KINDS, Curvature, curvatures
from .matrices import Matrix, chosen_matrices, no_layers, require_pattern


@dataclass(frozen=True)
class Influence(Edit):
    """Influence functions as an edit: the forget rows' gradient, divided by the retain rows' curvature, step by step.

    W <- W + eta (F_r + l)^-1 grad_W mean_i min(nll_i, goal), for the linear layers with their biases. F_r is the
    Fisher matrix of the retain rows' answer tokens with labels that the model draws itself, block by block
    (`curvatures`), and l = damping * its mean eigenvalue: steps are short where retain rows are sensitive. The
    influence function is one step with eta = forget rows / training rows; here eta of each step is searched for, so
    that step k of n brings the mean NLL k/n of the way to goal = share_of_level * level. Biases count as weights of
    an input that is always 1. Norms, embeddings and the output head stay.

    Args:
        factors: "ekfac"; "kfac", which takes half the time; or "diagonal", which needs the least memory and neglects
            that the weights of a layer act together.
        share_of_level: where it stops; beyond the level the edit would show what was forgotten.
        steps: at most.
        damping: in mean eigenvalues of the layer.
        retain_rows: that the curvature is of, and whose NLL is watched, drawn from all.
        refresh: whether the curvature is taken anew before each step, or once, which is cheaper. It is nearly 0 where
            rows are known by heart, and says little of the model that comes out of the first step.
        layers: regular expression that is searched for in layers' names; None for all linear layers.

    Paper: McKinney et al. 2026, https://arxiv.org/abs/2602.10568; Koh et al. 2017, https://arxiv.org/abs/1703.04730.
    """

    factors: str = "ekfac"
    share_of_level: float = 0.8
    steps: int = 5
    damping: float = 0.1
    retain_rows: int = 1000
    refresh: bool = True
    layers: str | None = None

    name = "influence"
    formula = "W + eta S_G^-1 (grad NLL_forget) S_A^-1, S of retain rows (EK-FAC); NLL to share_of_level * level"
    paper = "McKinney et al. 2026, arXiv:2602.10568"
    reads = frozenset({"forget", "retain"})
    cost = (
        "a step: two passes with gradients over retain_rows (one for kfac and diagonal), one and some four without "
        "over the forget rows; in memory 4 bytes x (2 inputs^2 + 2 outputs^2 + 3 inputs x outputs) of every linear "
        "layer, so for wide layers ten times the model and more: choose `layers`"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require_choice("factors of influence", self.factors, KINDS)
        self.require_positive("share_of_level")
        # Below it, directions that no retain row uses would be divided by nothing.
        self.require_positive("damping")
        self.require("steps", self.steps >= 1, "1 or above")
        self.require("retain_rows", self.retain_rows >= 1, "1 or above")
        require_pattern(self, self.layers)

    def unfit(self, model: PreTrainedModel, data: EditData) -> str | None:
        return no_layers(model, self.layers)

    def run(self, model: PreTrainedModel, data: EditData) -> list[Tried]:
        goal = self.share_of_level * data.require_level(self)
        matrices = chosen_matrices(model, self.layers, with_bias=True)
        retain = drawn_rows(data.retain, self.retain_rows, data.seed)
        curvature: dict[str, Curvature] = {}

        def direction(gradients: Gradients) -> Gradients:
            if self.refresh or not curvature:
                curvature.clear()  # before there are two of them
                curvature.update(self.curvature(model, data, matrices, retain))
            # A layer that no retain row sends a gradient to has no curvature to be measured by, and stays.
            known = {name: part for name, part in gradients.items() if name in curvature}
            solved = {name: curvature[name].solve(part, self.damping) for name, part in known.items()}
            return {name: torch.zeros_like(part) for name, part in gradients.items()} | solved

        watched = replace(data, retain=retain)
        return ascend(model, watched, matrices, Ascent(goal, self.steps), direction)

    def curvature(
        self, model: PreTrainedModel, data: EditData, matrices: dict[str, Matrix], retain: Sequence[TokenizedRow]
    ) -> dict[str, Curvature]:
        """Of the retain rows, by layer."""
        drawn = with_drawn_answers(model, data.questioner, retain)
        return curvatures(matrices, lambda: drawn_batches(model, data.questioner, drawn), self.factors)
