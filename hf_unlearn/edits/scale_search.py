"""Finds how far to go along a direction: the scale at which the forget rows have the level of rows never seen."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ..results.edit_report import Tried
from .base import EditData

TOLERANCE = 0.02  # nats per token that the mean may be off
_HALVINGS = 12


def scale_to_level(
    model: Any,
    data: EditData,
    level: float,
    put: Callable[[float], None],
    *,
    most: float,
    first: float = 1.0,
    name: str = "alpha",
) -> list[Tried]:
    """Bring the mean NLL of the forget rows to a level: doubled from `first` on until it is above, then bisected.

    The weights are left at the scale whose mean NLL came closest to the level; at 0 where the rows are at or above the
    level there. A loss that is not finite counts as above it.

    Args:
        model: whose weights `put` sets.
        data: of the edit.
        level: mean NLL per token, nats.
        put: sets the weights to those of a scale.
        most: the highest scale; not above it even where the level is not reached.
        first: the first scale that is tried beside 0.
        name: of the scale in the report.

    Returns:
        what was tried, in order, the chosen one marked.
    """
    tried: list[Tried] = []

    def above(scale: float) -> bool:
        put(scale)
        tried.append(data.tried(model, {name: scale}, retain=False))
        return not tried[-1].forget_nll < level

    low, high = 0.0, min(first, most)
    if not above(0.0):
        while not (bracketed := above(high)) and high < most:
            low, high = high, min(2 * high, most)
        for _ in range(_HALVINGS if bracketed else 0):
            if abs(tried[-1].forget_nll - level) <= TOLERANCE:
                break
            middle = (low + high) / 2
            low, high = (low, middle) if above(middle) else (middle, high)
    distances = [abs(one.forget_nll - level) if math.isfinite(one.forget_nll) else math.inf for one in tried]
    best = distances.index(min(distances))
    put(tried[best].setting[name])
    tried[best] = replace(tried[best], chosen=True)
    return tried
