"""How much more attacks get than from controls: differences of means, with intervals that hold for all at once."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..results.attack_report import ORACLE, UNSEEN, Excess

RESAMPLES = 1000
_COVERED = 0.95
_LEAST_ERROR = 1e-9  # of an attack whose leaks are all alike, which has no spread to divide by


@dataclass(frozen=True)
class Compared:
    """The leaks of one attack that are compared; each array has the rows reported, in their order.

    Attributes:
        model: [R] of the model.
        oracle: [R] of the same rows under a retrained model; None without one.
        unseen: [U] of rows never seen under the model; None without such rows.
        placed_among: where the leaks are places among never-seen rows, how many those are; else 0.
    """

    model: NDArray[np.float64]
    oracle: NDArray[np.float64] | None
    unseen: NDArray[np.float64] | None
    placed_among: int = 0

    @property
    def widening(self) -> float:
        """Of the resampled deviations: the AUC of R rows and U others varies as 1 / R + 1 / U, not as 1 / R alone."""
        return math.sqrt(1 + len(self.model) / self.placed_among) if self.placed_among else 1.0

    @property
    def controlled(self) -> bool:
        """Whether there is a control."""
        return self.oracle is not None or self.unseen is not None

    def value(self) -> tuple[float, str]:
        """leak(model) - max(leak of the controls), as means over all rows, and the higher control."""
        controls = {
            name: leaks.mean() for name, leaks in ((ORACLE, self.oracle), (UNSEEN, self.unseen)) if leaks is not None
        }
        highest = max(controls, key=lambda name: controls[name])
        return float(self.model.mean() - controls[highest]), highest

    def resampled(self, rows: NDArray[np.intp], unseen: NDArray[np.intp]) -> NDArray[np.float64]:
        """The same over resamples: rows [B, R] and never-seen rows [B, U] -> [B], widened where leaks are places."""
        controls = [] if self.oracle is None else [self.oracle[rows].mean(1)]
        controls += [] if self.unseen is None else [self.unseen[unseen].mean(1)]
        values = self.model[rows].mean(1) - np.max(controls, axis=0)
        middle = self.value()[0]
        return np.asarray(middle + (values - middle) * self.widening)


def excesses(compared: Mapping[str, Compared], *, seed: int = 0) -> tuple[dict[str, Excess], Excess | None]:
    """The excess of every attack, and the largest one, with intervals.

    e_a = leak_a(model) - max(leak_a(oracle), leak_a(unseen)). Rows are resampled 1000 times with replacement, forget
    rows and never-seen rows each on their own and the same for all attacks; s_a is the deviation of e_a over the
    resamples, and c the 95% quantile of max_a |e_a* - e_a| / s_a, the maximum taken anew in each. The interval of an
    attack is e_a -+ c s_a; all of them together hold with 95%, so the largest true excess lies between the largest
    lower and the largest upper end with 95% at least, however many attacks are tried.

    Args:
        compared: by attack; attacks without a control are left out.
        seed: of the resamples.

    Returns:
        by attack, and the largest with its own interval; None where no attack has a control.
    """
    named = {name: leaks for name, leaks in compared.items() if leaks.controlled}
    if not named:
        return {}, None
    values, controls = zip(*(leaks.value() for leaks in named.values()), strict=True)
    resampled = _resampled(list(named.values()), seed)
    errors = np.maximum(resampled.std(0), _LEAST_ERROR)
    largest = (np.abs(resampled - np.array(values)) / errors).max(1)
    reach = float(np.quantile(largest, _COVERED)) * errors
    found = {
        name: Excess(value, value - width, value + width, control)
        for name, value, width, control in zip(named, values, reach.tolist(), controls, strict=True)
    }
    return found, largest_excess(list(found.values()))


def largest_excess(of: Sequence[Excess]) -> Excess:
    """The largest of several excesses whose intervals hold together, with an interval of its own."""
    top = max(of, key=lambda excess: excess.value)
    return Excess(top.value, max(excess.low for excess in of), max(excess.high for excess in of), top.control)


def _resampled(attacks: Sequence[Compared], seed: int) -> NDArray[np.float64]:
    """[RESAMPLES, attacks] excesses; all attacks share the draws, so that rows that give away much do so in each."""
    generator = np.random.default_rng(seed)
    rows = len(attacks[0].model)
    unseen = max((len(leaks.unseen) for leaks in attacks if leaks.unseen is not None), default=0)
    drawn = generator.integers(rows, size=(RESAMPLES, rows))
    others = generator.integers(max(1, unseen), size=(RESAMPLES, unseen))
    return np.column_stack([leaks.resampled(drawn, others) for leaks in attacks])
