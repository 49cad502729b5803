"""Edits, one file each: weights changed without the objective of the trainer, before, after or instead of it."""

from ..plugins import PluginTable, components
from .apply import apply
from .base import Edit, EditData
from .carry_out import AppliedEdit
from .grpo import GRPO
from .influence import Influence
from .msa import MSA
from .null_space import NullSpace
from .quark import Quark
from .repselect import RepSelect
from .rewind import Rewind
from .shrink_and_regrow import ShrinkAndRegrow
from .task_vector import TaskVector

_PACKAGED: tuple[type[Edit], ...] = (
    GRPO,
    Influence,
    MSA,
    NullSpace,
    Quark,
    RepSelect,
    Rewind,
    ShrinkAndRegrow,
    TaskVector,
)

EDITS = PluginTable[type[Edit]](
    "edit",
    {edit.name: edit for edit in _PACKAGED},
    lambda plugin: components(plugin.edits, Edit),
)

__all__ = [
    "EDITS",
    "GRPO",
    "MSA",
    "AppliedEdit",
    "Edit",
    "EditData",
    "Influence",
    "NullSpace",
    "Quark",
    "RepSelect",
    "Rewind",
    "ShrinkAndRegrow",
    "TaskVector",
    "apply",
]
