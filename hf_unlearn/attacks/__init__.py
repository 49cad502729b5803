"""Attacks, one file each: what brings the forgotten back, how much more than from a model that never knew it."""

from ..plugins import PluginTable, components
from .base import Attack, Leak, Setting, Threat
from .merge_sibling import MergeSibling
from .prune import Prune
from .quantize import Quantize
from .relearn import Relearn
from .remove_adapter import RemoveAdapter
from .rows import AttackedRows
from .target import Target

_PACKAGED: tuple[type[Attack], ...] = (MergeSibling, Prune, Quantize, Relearn, RemoveAdapter)

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
    "MergeSibling",
    "Prune",
    "Quantize",
    "Relearn",
    "RemoveAdapter",
    "Setting",
    "Target",
    "Threat",
]
