"""How well a judge agrees with people: Cohen's kappa and accuracy on rows that a person labelled."""

import math
import warnings
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .checks import flags, same_lengths
from .description import PERCENT, MetricDescription
from .result import MetricResult, bootstrap, proportion


@dataclass(frozen=True)
class Agreement:
    """What a judge's agreement with a person came to.

    Attributes:
        kappa: Cohen's, with a bootstrap interval over rows.
        accuracy: share of rows with the person's label, with Wilson's interval.
        unjudged: labelled rows that the judge could not judge; they are in neither figure.
        judge: name of the judge.
        rows: SHA-256 of the labelled rows.
    """

    kappa: MetricResult
    accuracy: MetricResult
    unjudged: int = 0
    judge: str = ""
    rows: str = ""

    @property
    def words(self) -> str:
        """ "kappa .81 [.70, .90] on 120 rows labelled by a person"."""
        ends = (self.kappa.low, self.kappa.high)
        shown = f" [{_short(ends[0])}, {_short(ends[1])}]" if ends[0] is not None and ends[1] is not None else ""
        left = f"; {self.unjudged} more could not be judged" if self.unjudged else ""
        return f"kappa {_short(self.kappa.value)}{shown} on {self.kappa.n} rows labelled by a person{left}"

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        return asdict(self) | {"kappa": self.kappa.to_dict(), "accuracy": self.accuracy.to_dict()}


def cohen_kappa(judged: Any, labelled: Any, *, seed: int = 0) -> MetricResult:
    """Agreement beyond chance: kappa = (p_o - p_e) / (1 - p_e), with a bootstrap interval over rows.

    p_o is the share of rows on which both agree, p_e the share that two raters with these rates would agree on by
    chance. NaN where both say the same of every row: chance alone agrees as well. An end of the interval is NaN where
    a resample has no kappa.

    Args:
        judged: [N] bools of the judge.
        labelled: [N] bools of a person, of the same rows.
        seed: of the resamples.

    Raises:
        ValueError: no rows, or lists of unlike length.

    Paper: Cohen 1960, A coefficient of agreement for nominal scales.
    """
    judged, labelled = flags("judged", judged), flags("labelled", labelled)
    same_lengths(judged=judged, labelled=labelled)
    if judged.all() == labelled.all() and judged.any() == labelled.any() and judged.all() == judged.any():
        return MetricResult(math.nan, len(judged))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of resamples with one label; their NaN is shown
        return bootstrap(_kappa, np.stack([judged, labelled], axis=1).astype(np.int64), seed=seed)


def agreement_accuracy(judged: Any, labelled: Any) -> MetricResult:
    """Share of rows on which the judge says what a person said; Wilson interval."""
    judged, labelled = flags("judged", judged), flags("labelled", labelled)
    same_lengths(judged=judged, labelled=labelled)
    return proportion(judged == labelled)


def _kappa(table: NDArray[np.int64]) -> float:
    from sklearn.metrics import cohen_kappa_score  # imported late: training has no use for it

    return float(cohen_kappa_score(table[:, 0], table[:, 1], labels=[0, 1]))


def _short(value: float) -> str:
    """Without the zero in front: ".81"."""
    return f"{value:.2f}".replace("0.", ".", 1) if abs(value) < 1 else f"{value:.2f}"


DESCRIPTIONS = (
    MetricDescription(
        "judge_kappa",
        "judge's agreement with people (kappa)",
        "Cohen's kappa of the judge's flags with the labels of a person",
        "kappa",
        ".2f",
    ),
    MetricDescription(
        "judge_accuracy",
        "judge's agreement with people",
        "share of the rows on which the judge says what a person said",
        "share",
        PERCENT,
    ),
)
