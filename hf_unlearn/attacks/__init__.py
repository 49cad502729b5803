"""Attacks, one file each: what brings the forgotten back, how much more than from a model that never knew it."""

from ..plugins import PluginTable, components
from .base import Attack, Leak, Setting, Threat
from .lens import LogitLens, TunedLens
from .membership import Membership
from .patching import Patching
from .probe import LinearProbe
from .rows import AttackedRows
from .soft_prompt import SoftPrompt
from .suffix import Suffix
from .target import Target

_PACKAGED: tuple[type[Attack], ...] = (
    LinearProbe,
    LogitLens,
    Membership,
    Patching,
    SoftPrompt,
    Suffix,
    TunedLens,
)

ATTACKS = PluginTable[type[Attack]](
    "attack",
    {attack.name: attack for attack in _PACKAGED},
    lambda plugin: components(plugin.attacks, Attack),
)

__all__ = [
    "ATTACKS",
    "Attack",
    "AttackedRows",
    "Leak",
    "LinearProbe",
    "LogitLens",
    "Membership",
    "Patching",
    "Setting",
    "SoftPrompt",
    "Suffix",
    "Target",
    "Threat",
    "TunedLens",
]
