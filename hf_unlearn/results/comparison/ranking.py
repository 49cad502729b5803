"""The front of Pareto and the order of methods, by the mean over seeds of their shares. Lower is better everywhere."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .shares import BACK, LEFT, LOST, TRACED
from .spread import Spread

RULE = (
    "Rank: by the largest of a method's shares, means over its seeds, since a method is as good as its weakest side; "
    "where the largest are equal, by the sum of the shares. Not ranked are methods of which a run is broken, or one "
    "of whose shares is missing or not a number."
)
FRONT = (
    "Front: methods than which no other is better in one share and as good in the rest; ranked methods alone can be "
    "on it."
)
_ROUNDING = 9  # digits of a share; what lies behind comes of rounding in floating point


@dataclass(frozen=True)
class Standing:
    """Where a method stands among those of its setting.

    Attributes:
        rank: from 1; equal for methods between which the rule does not decide; None where it is not ranked.
        on_front: whether no other method is better in one share and as good in the rest.
        worst: name of the share that the rank rests on; "" where it is not ranked.
        reason: why it is not ranked, as the end of a sentence; "" where it is.
    """

    rank: int | None = None
    on_front: bool = False
    worst: str = ""
    reason: str = ""


def compared_shares(shares: Sequence[Mapping[str, Spread]]) -> list[str]:
    """The shares in which methods are compared: left and lost, traced where one has it, back where all have it.

    An attack is an extra that may have been tried on some of the methods alone: not having been attacked is no fault.
    """
    traced = [TRACED] if any(TRACED in of_method for of_method in shares) else []
    back = [BACK] if shares and all(BACK in of_method for of_method in shares) else []
    return [LEFT, LOST, *traced, *back]


def standings(shares: Sequence[Mapping[str, Spread]], broken: Sequence[str]) -> list[Standing]:
    """Front and rank of methods.

    Args:
        shares: of each method, the spread of each share over its seeds; a share that a run lacks is not among them.
        broken: of each method, words for the runs of it that are broken; "" where none is.
    """
    axes = compared_shares(shares)
    reasons = [words or _lacking(of_method, axes) for of_method, words in zip(shares, broken, strict=True)]
    points = [
        None if reason else tuple(round(of_method[name].mean, _ROUNDING) for name in axes)
        for of_method, reason in zip(shares, reasons, strict=True)
    ]
    ranked = [point for point in points if point is not None]
    order = sorted({_by_rule(point) for point in ranked})
    places = [sum(_by_rule(other) < rule for other in ranked) + 1 for rule in order]
    by_rule = dict(zip(order, places, strict=True))
    return [
        Standing(reason=reason)
        if point is None
        else Standing(
            rank=by_rule[_by_rule(point)],
            on_front=not any(_dominates(other, point) for other in ranked),
            worst=axes[point.index(max(point))],
        )
        for point, reason in zip(points, reasons, strict=True)
    ]


def _by_rule(point: Sequence[float]) -> tuple[float, float]:
    # A method that is dominated has no smaller maximum and a greater sum: the first rank lies on the front.
    return max(point), round(sum(point), _ROUNDING)


def _dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    return all(a <= b for a, b in zip(one, other, strict=True)) and tuple(one) != tuple(other)


def _lacking(shares: Mapping[str, Spread], axes: Sequence[str]) -> str:
    missing = [name for name in axes if name not in shares]
    if missing:
        return f"there is no figure for {', '.join(missing)}"
    unknown = [name for name in axes if not math.isfinite(shares[name].mean)]
    return f"{', '.join(unknown)} is not a number" if unknown else ""
