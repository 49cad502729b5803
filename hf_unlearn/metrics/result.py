"""`MetricResult`, a value with n and its 95% interval, and the intervals: Wilson's and the bootstrap's."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import input_error
from .checks import flags, number_table, numbers

RESAMPLES = 1000
_TAIL = 0.025  # of the 95% interval, on either side


@dataclass(frozen=True)
class MetricResult:
    """One number, the rows behind it and its 95% confidence interval.

    Attributes:
        value: NaN is shown, never filtered.
        n: rows or answers that it rests on.
        low: lower end of the interval, None where the metric has none.
        high: upper end.
        interval: "wilson", "bootstrap" or None.
    """

    value: float
    n: int
    low: float | None = None
    high: float | None = None
    interval: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it: a number that is not finite is one of the strings "nan", "inf", "-inf"."""
        ends = {name: None if end is None else _written(end) for name, end in (("low", self.low), ("high", self.high))}
        return {"value": _written(self.value), "n": self.n, **ends, "interval": self.interval}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> "MetricResult":
        """What `to_dict` wrote.

        Raises:
            ValueError: it is something else.
        """
        ends = {name: stored.get(name) for name in ("low", "high")}
        try:
            read = {name: None if end is None else float(end) for name, end in ends.items()}
            return cls(float(stored["value"]), int(stored["n"]), **read, interval=stored.get("interval"))
        except (KeyError, TypeError, ValueError):
            raise input_error(
                expected="a metric as MetricResult.to_dict writes it",
                got=f"the keys {', '.join(map(str, stored)) or 'of nothing'}, or a value that is no number",
                why="value and n cannot be read from it",
                fix="pass the dictionary unchanged, or evaluate again",
            ) from None


def proportion(outcomes: Any) -> MetricResult:
    """The share of True among N outcomes, with the Wilson score interval.

    The interval keeps its width where all outcomes are the same: 20 of 20 leaves about 0.84 to 1. One outcome is no
    exception.

    Args:
        outcomes: [N] bools, or 0 and 1.

    Raises:
        ValueError: no outcomes, or values other than these.
    """
    from scipy.stats import binomtest  # scipy.stats takes a quarter of a second, which training has no use for

    hits = flags("outcomes", outcomes)
    count, n = int(hits.sum()), len(hits)
    value = count / n
    ends = binomtest(count, n).proportion_ci(confidence_level=1 - 2 * _TAIL, method="wilson")
    # Rounding must not put 0 of n or n of n outside of its own interval.
    return MetricResult(value, n, min(float(ends.low), value), max(float(ends.high), value), "wilson")


def mean(values: Any, *, seed: int = 0) -> MetricResult:
    """The mean of N values with a percentile bootstrap interval over them; NaN among them makes value and ends NaN.

    Args:
        values: [N] numbers.
        seed: of the resamples.

    Raises:
        ValueError: no values.
    """
    return bootstrap(np.mean, numbers("values", values), seed=seed)


def bootstrap(statistic: Callable[..., Any], *samples: Any, seed: int = 0) -> MetricResult:
    """A statistic of one or more samples, with the percentile interval (2.5, 97.5) over 1000 resamples.

    Every sample is resampled with replacement, on its own, and by rows where it is a table, so that what is of one
    row stays together. Where all rows of each sample are equal (one row, for instance) both ends are the value. Where
    the value is NaN so are both ends, and where that of some resamples is NaN so are the ends: none is left out. n is
    the number of rows of all samples together.

    Args:
        statistic: called as statistic(*arrays), gives a float.
        samples: one or more, each [N] or [N, columns]; N may differ between them.
        seed: of the resamples.

    Raises:
        ValueError: no sample, or one that is empty or holds no numbers.
    """
    if not samples:
        raise input_error(
            expected="one or more samples",
            got="none",
            why="there is nothing to take the statistic of",
            fix="call bootstrap(statistic, values)",
        )
    arrays = [number_table(f"samples[{index}]", sample) for index, sample in enumerate(samples)]
    value, n = float(statistic(*arrays)), sum(map(len, arrays))
    if math.isnan(value):
        return MetricResult(value, n, math.nan, math.nan, "bootstrap")
    if all((array == array[0]).all() for array in arrays):
        return MetricResult(value, n, value, value, "bootstrap")
    generator = np.random.default_rng(seed)
    if statistic is np.mean and len(arrays) == 1 and arrays[0].ndim == 1:
        resamples = _resampled_means(arrays[0], generator)
    else:
        resamples = np.array(
            [
                float(statistic(*(array[generator.integers(len(array), size=len(array))] for array in arrays)))
                for _ in range(RESAMPLES)
            ]
        )
    return MetricResult(value, n, _quantile(resamples, _TAIL), _quantile(resamples, 1 - _TAIL), "bootstrap")


def _resampled_means(values: NDArray[np.float64], generator: np.random.Generator) -> NDArray[np.float64]:
    """Means of resamples, many at a time: to the bit those of one by one, which takes tens of times as long."""
    n = len(values)
    part = max(1, min(RESAMPLES, 2**18 // n))
    sizes = [min(part, RESAMPLES - start) for start in range(0, RESAMPLES, part)]
    return np.concatenate([values[generator.integers(n, size=(size, n))].mean(axis=1) for size in sizes])


def value_and_n(name: str, given: "float | MetricResult | None") -> tuple[float, int]:
    """A number as (value, n), where a plain one rests on one row; a missing one is refused."""
    if isinstance(given, MetricResult):
        return given.value, given.n
    if isinstance(given, bool) or not isinstance(given, int | float | np.number):
        raise input_error(
            expected=f"{name} as a number or a MetricResult",
            got="none" if given is None else type(given).__name__,
            why="the metric is computed from it, and an invented one would be an invented result",
            fix="pass what was measured, or leave this metric out",
        )
    return float(given), 1


def _quantile(values: NDArray[np.float64], share: float) -> float:
    """np.quantile by linear interpolation, which between two infinities of one sign would be NaN."""
    if np.isnan(values).any():
        return math.nan
    ordered = np.sort(values)
    place = share * (len(ordered) - 1)
    below, above = ordered[math.floor(place)], ordered[math.ceil(place)]
    if below == above:
        return float(below)
    weight = place - math.floor(place)
    return float(below * (1 - weight) + above * weight)


def _written(number: float) -> float | str:
    return float(number) if math.isfinite(number) else str(float(number))
