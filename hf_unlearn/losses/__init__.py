"""Losses, one file each: scores of answers in, one value a token or row out. To add one: its file and a line here."""

from ..data.roles import Role
from ..model.scoring import Scores
from ..plugins import PluginTable, components
from .anchor_kl import AnchorKL
from .answer_preservation import AnswerPreservation
from .base import DistributionLoss, Loss, Needs
from .ceu import CEU
from .distil import Distil
from .dpo import DPO
from .flat import FLAT
from .grad_ascent import GradientAscent
from .hidden import RetainHidden
from .idk import IDK
from .ihl import IHL
from .jsd import JSD, RetainJSD
from .kl import RetainKL
from .logit_margin import LogitMargin
from .max_entropy import MaxEntropy
from .nll import RetainNLL
from .npo import NPO
from .random_mismatch import RandomMismatch
from .rmu import RMU
from .satimp import SatImp
from .simnpo import SimNPO
from .undial import UNDIAL
from .unseen_level import UnseenLevel
from .wga import WGA

FORGET_LOSSES = PluginTable[type[Loss]](
    "forget loss",
    {
        loss.name: loss
        for loss in (
            GradientAscent,
            NPO,
            SimNPO,
            DPO,
            IDK,
            RandomMismatch,
            MaxEntropy,
            WGA,
            SatImp,
            UNDIAL,
            CEU,
            RMU,
            IHL,
            JSD,
            FLAT,
            LogitMargin,
            UnseenLevel,
            Distil,
        )
    },
    lambda plugin: components(plugin.forget_losses, Loss),
)
RETAIN_LOSSES = PluginTable[type[Loss]](
    "retain loss",
    {loss.name: loss for loss in (RetainNLL, RetainKL, RetainJSD, RetainHidden, AnswerPreservation)},
    lambda plugin: components(plugin.retain_losses, Loss),
)
ANCHOR_LOSSES = PluginTable[type[Loss]](
    "anchor loss",
    {loss.name: loss for loss in (AnchorKL,)},
    lambda plugin: components(plugin.anchor_losses, Loss),
)

__all__ = [
    "ANCHOR_LOSSES",
    "CEU",
    "DPO",
    "FLAT",
    "FORGET_LOSSES",
    "IDK",
    "IHL",
    "JSD",
    "NPO",
    "RETAIN_LOSSES",
    "RMU",
    "UNDIAL",
    "WGA",
    "AnchorKL",
    "AnswerPreservation",
    "Distil",
    "DistributionLoss",
    "GradientAscent",
    "LogitMargin",
    "Loss",
    "MaxEntropy",
    "Needs",
    "RandomMismatch",
    "RetainHidden",
    "RetainJSD",
    "RetainKL",
    "RetainNLL",
    "Role",
    "SatImp",
    "Scores",
    "SimNPO",
    "UnseenLevel",
]
