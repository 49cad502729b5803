"""Which run of a sweep is the best: the Pareto front, and on it the run nearest to the ideal."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .objectives import UTILITY, UTILITY_TOLERANCE, Objective

RULE = (
    f"of the runs on the front whose utility fell by at most {100 * UTILITY_TOLERANCE:g} points, the one nearest to "
    "the ideal (0 of everything); figures are divided by those of the model before unlearning, the drop of utility by "
    f"{100 * UTILITY_TOLERANCE:g} points; where all fell by more, the one that fell least"
)


@dataclass(frozen=True)
class ScoredTrial:
    """A run of a sweep that has ended.

    Attributes:
        number: in the study.
        values: of the parameters.
        figures: of the objectives, in their order; () of a run that failed.
        unchanged: whether it is the recipe as it was given.
        seconds: that it took.
        metrics: of the suite.
        failure: why there are no figures.
        stop_reason: why it ended early, or None.
    """

    number: int
    values: Mapping[str, Any]
    figures: tuple[float, ...] = ()
    unchanged: bool = False
    seconds: float = 0.0
    metrics: Mapping[str, float] = field(default_factory=dict)
    failure: str | None = None
    stop_reason: str | None = None


def dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether figures are nowhere larger than others and somewhere smaller."""
    pairs = list(zip(one, other, strict=True))
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


def front(trials: Sequence[ScoredTrial]) -> list[ScoredTrial]:
    """The runs that no other one dominates, of those that have figures."""
    scored = [trial for trial in trials if trial.figures]
    return [trial for trial in scored if not any(dominates(other.figures, trial.figures) for other in scored)]


def distance(figures: Sequence[float], objectives: Sequence[Objective]) -> float:
    """How far figures are from the ideal, in scaled units."""
    return math.hypot(*(one.scaled(figure) for one, figure in zip(objectives, figures, strict=True)))


def choose(trials: Sequence[ScoredTrial], objectives: Sequence[Objective]) -> ScoredTrial:
    """The best run by `RULE`; of equals the first, which is the unchanged recipe where it is among them."""
    on_front = sorted(front(trials), key=lambda trial: trial.number)
    place = [one.name for one in objectives].index(UTILITY) if any(o.name == UTILITY for o in objectives) else None
    if place is None:
        return min(on_front, key=lambda trial: distance(trial.figures, objectives))
    kept = [trial for trial in on_front if trial.figures[place] <= UTILITY_TOLERANCE]
    if not kept:
        return min(on_front, key=lambda trial: trial.figures[place])
    return min(kept, key=lambda trial: distance(trial.figures, objectives))
