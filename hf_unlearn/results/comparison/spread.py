"""A figure over the seeds of a method: mean, standard deviation, range."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Spread:
    """One figure of the runs of a method.

    Attributes:
        values: one a run, in the order of the runs; NaN is kept.
        mean: of them; NaN where one is.
        sd: standard deviation over the runs, with n - 1; None for a single run.
        low: the least.
        high: the greatest.
    """

    values: tuple[float, ...]
    mean: float
    sd: float | None
    low: float
    high: float

    @property
    def n(self) -> int:
        """Runs that have the figure."""
        return len(self.values)


def spread(values: Sequence[float]) -> Spread:
    """The spread of the values of one or more runs; none of them is left out, so that a NaN makes all of it NaN."""
    assert values
    if not all(map(math.isfinite, values)):
        # The mean of infinities of one sign is that infinity; how far they spread nobody can say.
        mean = sum(values) / len(values)
        ends = (math.nan, math.nan) if any(map(math.isnan, values)) else (min(values), max(values))
        return Spread(tuple(values), mean, None if len(values) == 1 else math.nan, *ends)
    sd = statistics.stdev(values) if len(values) > 1 else None
    return Spread(tuple(values), statistics.fmean(values), sd, min(values), max(values))
