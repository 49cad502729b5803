"""The forget gradient without what would undo the retain gradient."""

from dataclasses import dataclass

from ..model.gradients import inner_product
from .base import Gradients, ReconcilesGradients


@dataclass(frozen=True)
class GradientSurgery(ReconcilesGradients):
    """Gradient surgery: where the two sides conflict, the forget gradient is projected off the retain gradient.

    g_f <- g_f - <g_f, g_r> / ||g_r||^2 g_r where <g_f, g_r> < 0, over all trainable weights at once; afterwards
    <g_f, g_r> = 0, and to first order forgetting no longer raises the retain loss.

    Paper: Yu et al. 2020 (PCGrad), https://arxiv.org/abs/2001.06782; Wang et al. 2025 (GRU),
    https://arxiv.org/abs/2503.09117.
    """

    name = "surgery"
    formula = "g_f <- g_f - <g_f, g_r> / ||g_r||^2 g_r where <g_f, g_r> < 0"
    paper = "Yu et al. 2020, arXiv:2001.06782; Wang et al. 2025, arXiv:2503.09117"

    def reconciled(self, forget: Gradients, retain: Gradients) -> Gradients:
        conflict = inner_product(forget, retain)
        if not conflict < 0:
            return forget
        share = conflict / inner_product(retain, retain)
        return [f - (share * r).to(f.dtype) for f, r in zip(forget, retain, strict=True)]
