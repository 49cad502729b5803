"""How much more attacks get than from controls: differences of means, with intervals that hold for all at once."""

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
    """

    model: NDArray[np.float64]
    oracle: NDArray[np.float64] | None
    unseen: NDArray[np.float64] | None

    @property
    def controlled(self) -> bool:
        """Whether there is a control."""
        return self.oracle is not None or self.unseen is not None

    def excess(self, rows: NDArray[np.intp], unseen: NDArray[np.intp]) -> tuple[float, str]:
        """leak(model) - max(leak of the controls) over some of the rows, and the higher control."""
        controls = {}
        if self.oracle is not None:
            controls[ORACLE] = float(self.oracle[rows].mean())
        if self.unseen is not None:
            controls[UNSEEN] = float(self.unseen[unseen].mean())
        highest = max(controls, key=lambda name: controls[name])
        return float(self.model[rows].mean()) - controls[highest], highest


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
    values, controls = zip(*(_whole(leaks) for leaks in named.values()), strict=True)
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


def _whole(leaks: Compared) -> tuple[float, str]:
    return leaks.excess(np.arange(len(leaks.model)), np.arange(0 if leaks.unseen is None else len(leaks.unseen)))


def _resampled(attacks: Sequence[Compared], seed: int) -> NDArray[np.float64]:
    """[RESAMPLES, attacks] excesses; attacks of equally many rows share their draws."""
    generator = np.random.default_rng(seed)
    rows = max(len(leaks.model) for leaks in attacks)
    unseen = max((len(leaks.unseen) for leaks in attacks if leaks.unseen is not None), default=0)
    table = np.empty((RESAMPLES, len(attacks)))
    for resample in range(RESAMPLES):
        drawn, others = generator.integers(rows, size=rows), generator.integers(max(1, unseen), size=unseen)
        for place, leaks in enumerate(attacks):
            own = drawn if len(leaks.model) == rows else drawn % len(leaks.model)
            table[resample, place] = leaks.excess(own, others)[0]
    return table


def recovered(
    model: NDArray[np.float64], before: NDArray[np.float64] | None, control: NDArray[np.float64] | None
) -> NDArray[np.bool_]:
    """Which rows an attack recovers: at least half of their old leak, and more than 95% of the control's rows give.

    Args:
        model: [R] leaks of the model.
        before: [R] of the model before unlearning under the same attack; None takes 1 for each.
        control: leaks of never-seen rows, or of the oracle; None where there are none.
    """
    enough = model >= (0.5 if before is None else before / 2)
    return enough if control is None else enough & (model > np.quantile(control, _COVERED))
