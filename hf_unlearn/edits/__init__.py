"""Edits, one file each: weights changed without the objective of the trainer, before, after or instead of it."""

from ..plugins import PluginTable, components
from .apply import apply
from .base import Edit, EditData
from .carry_out import AppliedEdit
from .grpo import GRPO
from .quark import Quark

_PACKAGED: tuple[type[Edit], ...] = (GRPO, Quark)

EDITS = PluginTable[type[Edit]](
    "edit",
    {edit.name: edit for edit in _PACKAGED},
    lambda plugin: components(plugin.edits, Edit),
)

__all__ = ["EDITS", "GRPO", "AppliedEdit", "Edit", "EditData", "Quark", "apply"]
