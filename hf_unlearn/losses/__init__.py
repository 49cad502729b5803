"""Stage 4, losses: one file each, scores in, values out, no model in sight. Adding one is its file and a line here."""

from .base import Loss, Needs
from .dpo import DPO
from .grad_ascent import GradientAscent
from .idk import IDK
from .kl import RetainKL
from .nll import RetainNLL
from .npo import NPO
from .random_mismatch import RandomMismatch
from .simnpo import SimNPO

FORGET_LOSSES: dict[str, type[Loss]] = {
    loss.name: loss for loss in (GradientAscent, NPO, SimNPO, DPO, IDK, RandomMismatch)
}
RETAIN_LOSSES: dict[str, type[Loss]] = {loss.name: loss for loss in (RetainNLL, RetainKL)}

__all__ = [
    "DPO",
    "FORGET_LOSSES",
    "IDK",
    "NPO",
    "RETAIN_LOSSES",
    "GradientAscent",
    "Loss",
    "Needs",
    "RandomMismatch",
    "RetainKL",
    "RetainNLL",
    "SimNPO",
]
