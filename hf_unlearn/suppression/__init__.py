"""Suppression at inference, one file each: answers changed around the weights, which still know."""

from pathlib import Path
from typing import Any

from ..errors import require_choice
from ..model.suppressed_forward import suppressed_forward, suppression_identity, unsuppressed
from ..plugins import PluginTable, components
from ..results.suppression_report import SUPPRESSION_FOLDER, SUPPRESSION_LABEL, SUPPRESSOR_FILE, SuppressionReport
from .base import Installed, Suppression, Suppressor
from .divergence_decoding import DivergenceDecoding, DivergenceSuppressor
from .harry_potter import HarryPotter, ReinforcedSuppressor
from .in_context import ContextSuppressor, InContext
from .parts import load_parts
from .prompt_guard import GuardSuppressor, PromptGuard
from .steering import Steering, SteeringSuppressor
from .suppress import Suppressed, suppress
from .uld import ULD, AssistantSuppressor

_PACKAGED: tuple[type[Suppression], ...] = (DivergenceDecoding, HarryPotter, InContext, PromptGuard, Steering, ULD)

SUPPRESSIONS = PluginTable[type[Suppression]](
    "suppression",
    {suppression.name: suppression for suppression in _PACKAGED},
    lambda plugin: components(plugin.suppressions, Suppression),
)


def load_suppressor(folder: str | Path) -> Suppressor:
    """The suppressor that `Suppressor.save` wrote.

    Raises:
        ValueError: files that are missing or broken, or of a suppression that is not known here.
    """
    name, parts = load_parts(Path(folder))
    require_choice("a saved suppression", name, SUPPRESSIONS)
    return SUPPRESSIONS[name].fitted(**parts)


def has_suppressor(folder: str | Path) -> bool:
    """Whether a suppressor was saved in a folder."""
    return (Path(folder) / SUPPRESSOR_FILE).is_file()


def remove_suppression(model: Any) -> None:
    """Take the suppressor off a model, if it has one: it answers as its weights do."""
    forward = suppressed_forward(model)
    if forward is not None:
        forward.leave()


__all__ = [
    "SUPPRESSIONS",
    "SUPPRESSION_FOLDER",
    "SUPPRESSION_LABEL",
    "ULD",
    "AssistantSuppressor",
    "ContextSuppressor",
    "DivergenceDecoding",
    "DivergenceSuppressor",
    "GuardSuppressor",
    "HarryPotter",
    "InContext",
    "Installed",
    "PromptGuard",
    "ReinforcedSuppressor",
    "Steering",
    "SteeringSuppressor",
    "Suppressed",
    "Suppression",
    "SuppressionReport",
    "Suppressor",
    "has_suppressor",
    "load_suppressor",
    "remove_suppression",
    "suppress",
    "suppression_identity",
    "unsuppressed",
]
