"""Attacks, one file each: what brings the forgotten back, how much more than from a model that never knew it."""

from ..plugins import PluginTable, components
from ..results.attack_report import AttackReport, load_attack_report
from .answer_probe import AnswerProbe
from .base import Attack, Leak, Setting, Threat
from .contrast import Contrast
from .leak_at_k import LeakAtK
from .lens import LogitLens, TunedLens
from .membership import Membership
from .merge_sibling import MergeSibling
from .patching import Patching
from .probe import LinearProbe
from .prompts import Prompts
from .prune import Prune
from .quantize import Quantize
from .relearn import Relearn
from .remove_adapter import RemoveAdapter
from .remove_suppression import RemoveSuppression
from .rows import AttackedRows
from .runner import attack
from .sampling import Sampling
from .soft_prompt import SoftPrompt
from .suffix import Suffix
from .suites import ATTACK_SUITES
from .target import Target

_PACKAGED: tuple[type[Attack], ...] = (
    AnswerProbe,
    Contrast,
    LeakAtK,
    LinearProbe,
    LogitLens,
    Membership,
    MergeSibling,
    Patching,
    Prompts,
    Prune,
    Quantize,
    Relearn,
    RemoveAdapter,
    RemoveSuppression,
    Sampling,
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
    "ATTACK_SUITES",
    "AnswerProbe",
    "Attack",
    "AttackReport",
    "AttackedRows",
    "Contrast",
    "Leak",
    "LeakAtK",
    "LinearProbe",
    "LogitLens",
    "Membership",
    "MergeSibling",
    "Patching",
    "Prompts",
    "Prune",
    "Quantize",
    "Relearn",
    "RemoveAdapter",
    "RemoveSuppression",
    "Sampling",
    "Setting",
    "SoftPrompt",
    "Suffix",
    "Target",
    "Threat",
    "TunedLens",
    "attack",
    "load_attack_report",
]
