"""Attacks, one file each: what brings the forgotten back, how much more than from a model that never knew it."""

from ..plugins import PluginTable, components
from .base import Attack, Leak, Setting, Threat
from .contrast import Contrast
from .leak_at_k import LeakAtK
from .prompts import Prompts
from .rows import AttackedRows
from .sampling import Sampling
from .target import Target

_PACKAGED: tuple[type[Attack], ...] = (Contrast, LeakAtK, Prompts, Sampling)

ATTACKS = PluginTable[type[Attack]](
    "attack",
    {attack.name: attack for attack in _PACKAGED},
    lambda plugin: components(plugin.attacks, Attack),
)

__all__ = [
    "ATTACKS",
    "Attack",
    "AttackedRows",
    "Contrast",
    "Leak",
    "LeakAtK",
    "Prompts",
    "Sampling",
    "Setting",
    "Target",
    "Threat",
]
