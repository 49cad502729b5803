"""Edits, one file each: weights changed without the objective of the trainer, before, after or instead of it."""

from ..plugins import PluginTable, components
from .apply import apply
from .base import Edit, EditData
from .carry_out import AppliedEdit
from .msa import MSA
from .rewind import Rewind
from .shrink_and_regrow import ShrinkAndRegrow
from .task_vector import TaskVector

_PACKAGED: tuple[type[Edit], ...] = (MSA, Rewind, ShrinkAndRegrow, TaskVector)

EDITS = PluginTable[type[Edit]](
    "edit",
    {edit.name: edit for edit in _PACKAGED},
    lambda plugin: components(plugin.edits, Edit),
)

__all__ = ["EDITS", "MSA", "AppliedEdit", "Edit", "EditData", "Rewind", "ShrinkAndRegrow", "TaskVector", "apply"]
