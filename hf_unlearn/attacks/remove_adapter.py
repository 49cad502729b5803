"""Removing the adapter: the base model, which knows what it knew."""

import copy
from collections.abc import Iterable
from dataclasses import dataclass

from peft import PeftModel

from .base import Attack, Leak, Threat
from .rows import AttackedRows
from .target import Target
from .weights import leak


@dataclass(frozen=True)
class RemoveAdapter(Attack):
    """Switches the adapter off, as whoever is given an adapter beside its base model can; exact.

    Paper: Hu et al. 2021, https://arxiv.org/abs/2106.09685 (LoRA).
    """

    name = "remove_adapter"
    threat = Threat.WEIGHTS
    formula = "p(y) of the base model alone"
    paper = "Hu et al. 2021, arXiv:2106.09685"
    cost = "a forward of all rows"

    def unfit(self, target: Target, rows: AttackedRows) -> str | None:
        return None if isinstance(target.model, PeftModel) else "there is no adapter to remove"

    def run(self, target: Target, rows: AttackedRows) -> Iterable[Leak]:
        yield leak(target, rows, {"adapter": "on"})
        model = copy.deepcopy(target.model)  # switching off changes flags of the weights, and merged weights
        with model.disable_adapter():
            removed = leak(target, rows, {"adapter": "off"}, model)
        yield removed
