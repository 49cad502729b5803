"""Four shares between 0 (as the model that never saw the rows) and 1, in which runs of one setting are compared."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ...metrics import MetricResult
from ..attack_words import is_relearning
from ..evaluation_result import EvaluationResult
from ..record import RunRecord
from ..verdict import membership, side_by_side

GUESS = 0.5  # AUC of an attack that knows nothing

LEFT, LOST, TRACED, BACK = SHARES = ("left", "lost", "traced", "back")
# What each is, for a table's notes and a page.
SHARE_WORDS = {
    LEFT: "left: how far the forget metric is still above the oracle's, as a share of how far it was above it before "
    "(without an oracle: as a share of its value before); below the oracle counts as 0, not as better",
    LOST: "lost: the fall of the utility as a share of its value before; a rise counts as 0",
    TRACED: "traced: the distance of the membership AUC from the oracle's (without an oracle: from the 0.5 of a "
    "guess), as a share of 0.5; rows that stand out as unlikely are traced as well",
    BACK: "back: the largest excess of a relearning attack, over the oracle and rows never seen",
}


@dataclass(frozen=True)
class RunShares:
    """What is left, lost, traced and comes back in one run; None where nothing was measured that tells it.

    Attributes:
        by_name: each share; NaN where its figures are not numbers, or where there was nothing to be forgotten.
        membership_metric: AUC that `traced` is about; "" without one.
    """

    by_name: Mapping[str, float | None]
    membership_metric: str = ""


def run_shares(record: RunRecord) -> RunShares:
    """The shares of a run, each against its own model before and its own oracle."""
    results = side_by_side(record.evaluations)
    after, before, oracle = (results.get(name) for name in ("after", "before", "oracle"))
    pair = None if after is None else after.pair
    found: dict[str, float | None] = dict.fromkeys(SHARES)
    if after is not None and before is not None and pair is not None:
        found[LEFT] = _left(*(_value(result, pair[0]) for result in (before, after, oracle)))
        found[LOST] = _lost(*(_value(result, pair[1]) for result in (before, after)))
    attack = membership(results)
    auc_name = "" if attack is None else attack.metric
    if after is not None and auc_name:
        auc, level = _value(after, auc_name), _value(oracle, auc_name)
        assert auc is not None  # what the attack was found by
        found[TRACED] = abs(auc - (GUESS if level is None else level)) / GUESS
    found[BACK] = _back(record)
    return RunShares(found, auc_name)


def _value(result: EvaluationResult | None, metric: str) -> float | None:
    figure: MetricResult | None = None if result is None else result.metrics.get(metric)
    return None if figure is None else figure.value


def _left(before: float | None, after: float | None, oracle: float | None) -> float | None:
    """(after - oracle) / (before - oracle), at least 0; NaN where the model before was no higher than the oracle."""
    if before is None or after is None:
        return None
    level = 0.0 if oracle is None else oracle
    return _share(after - level, before - level)


def _lost(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else _share(before - after, before)


def _share(part: float, whole: float) -> float:
    # Not max(0, part / whole), which is 0 for a NaN.
    share = part / whole if whole > 0 else math.nan
    return 0.0 if share < 0 else share


def _back(record: RunRecord) -> float | None:
    report = record.attack_report
    findings = [] if report is None else [finding for finding in report.findings if is_relearning(finding)]
    values = [finding.excess.value for finding in findings if finding.excess is not None]
    if not values:
        return None
    return math.nan if any(map(math.isnan, values)) else max(0.0, *values)
