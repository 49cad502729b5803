"""Removing a suppression: the weights alone, which nothing has changed."""

from collections.abc import Iterable
from dataclasses import dataclass

from ..model.suppressed_forward import suppression_identity, unsuppressed
from .base import Attack, Leak, Threat
from .rows import AttackedRows
from .target import Target
from .weights import leak


@dataclass(frozen=True)
class RemoveSuppression(Attack):
    """Calls the weights without what suppresses their answers, as whoever has them can; exact."""

    name = "remove_suppression"
    threat = Threat.WEIGHTS
    formula = "p(y) of the weights alone"
    cost = "two forwards of all rows"

    def unfit(self, target: Target, rows: AttackedRows) -> str | None:
        return None if suppression_identity(target.model) else "nothing suppresses the model's answers"

    def run(self, target: Target, rows: AttackedRows) -> Iterable[Leak]:
        yield leak(target, rows, {"suppression": "on"})
        with unsuppressed(target.model):
            removed = leak(target, rows, {"suppression": "off"})
        yield removed
