"""A straight line by least squares, how well predictions agree with what they predict, residuals for other rows."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

FOLDS = 5


@dataclass(frozen=True)
class Line:
    """y = a + b p: the NLL of unseen rows by their profile, least squares.

    Attributes:
        intercept: a, nats per token.
        slope: b; 0 where all profiles are alike.
    """

    intercept: float
    slope: float

    @classmethod
    def fit(cls, profile: np.ndarray, nll: np.ndarray) -> "Line":
        """The line through the rows' profile and NLL, both [N]."""
        deviation = profile - profile.mean()
        spread = float(deviation @ deviation)
        slope = float(deviation @ nll) / spread if spread > 0 else 0.0
        return cls(float(nll.mean() - slope * profile.mean()), slope)

    def __call__(self, profile: np.ndarray) -> np.ndarray:
        """Levels of rows by their profile, [N]; an NLL is never below 0."""
        return np.maximum(self.intercept + self.slope * profile, 0.0)


@dataclass(frozen=True)
class Agreement:
    """How well predictions tell the NLL of rows. Correlations are None where nothing varies.

    Attributes:
        pearson: correlation of NLL and prediction.
        spearman: of their ranks.
        error: mean absolute error, nats per token.
    """

    pearson: float | None
    spearman: float | None
    error: float


def folds_of(count: int) -> np.ndarray:
    """The fold of each row, [N]: row i is in fold i modulo `FOLDS`, or alone where there are fewer rows."""
    return np.arange(count) % min(FOLDS, count)


def agreement(predicted: np.ndarray, nll: np.ndarray) -> Agreement:
    """Of predictions with the NLL of the same rows, both [N], nats per token."""
    from scipy.stats import spearmanr  # takes a quarter of a second, which most runs have no use for

    error = float(np.abs(predicted - nll).mean())
    if np.ptp(nll) == 0 or np.ptp(predicted) == 0:
        return Agreement(None, None, error)
    return Agreement(float(np.corrcoef(predicted, nll)[0, 1]), float(spearmanr(predicted, nll).statistic), error)


def dealt_out(residuals: np.ndarray, keys: Sequence[str]) -> np.ndarray:
    """Residuals for N rows with the distribution of those of others: quantiles (k + 1/2) / N in the order of the keys.

    Args:
        residuals: of the calibration rows, [M].
        keys: of the rows, such as hashes; what they are decides who gets which, and their place does not.
    """
    quantiles = np.quantile(residuals, (np.arange(len(keys)) + 0.5) / len(keys))
    dealt = np.empty(len(keys))
    dealt[sorted(range(len(keys)), key=keys.__getitem__)] = quantiles
    return dealt
