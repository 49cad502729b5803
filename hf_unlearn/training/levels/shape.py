"""The shape of rows that no model saw: how the NLL of a row's tokens lies around the row's mean, and in what order."""

import numpy as np

from ...model.score_rows import RowLogps

LIKE = 100  # unseen tokens that stand for one


class Shape:
    """The NLL of a token of an unseen row as a multiple of the row's mean, by its rank among the row's tokens.

    It is the mean of the rows' own quantile functions (their barycentre in optimal transport in one dimension). The
    quantiles of all tokens together hold the spread between rows too, and have longer tails than any row.

    Args:
        unseen: what the model gives rows that it never saw.
    """

    def __init__(self, unseen: RowLogps) -> None:
        self._rows = 0
        sums: dict[int, np.ndarray] = {}  # by length of a row: what its tokens sum up to from the likeliest on
        for nll in (-unseen.logps.double()).split(unseen.lengths.tolist()):
            if float(nll.sum()) <= 0:  # a row that is known for certain has no shape
                continue
            self._rows += 1
            ascending = np.concatenate([[0.0], nll.sort().values.cumsum(0) / nll.sum()])
            sums[len(nll)] = sums.get(len(nll), 0.0) + ascending
        self._sums = sums

    def __call__(self, count: int) -> np.ndarray:
        """Of a row of `count` tokens: ascending multiples with mean 1, [count].

        The k-th is the mean of the quantile function over the k-th of `count` equal parts, so that nothing of a row is
        lost or counted twice where its length is another.
        """
        if not self._rows:
            return np.ones(count)
        parts = np.linspace(0, 1, count + 1)
        shares = sum(np.interp(parts, np.linspace(0, 1, length + 1), sums) for length, sums in self._sums.items())
        return count * np.diff(shares) / self._rows


class TokenMixture:
    """What a row's tokens may get, from unseen tokens of which as much was predicted, as multiples of their mean.

    Each token of a row may get what the `LIKE` unseen tokens got whose predictions lie around its own: its row has the
    quantiles of all of these together. A row that is partly copied has other tokens than one that is not, which the
    shape of all unseen rows (`Shape`) does not know.

    Args:
        predicted: of tokens of unseen rows, [M], by what was fitted without their row.
        nll: what the model gives them, [M], nats.
    """

    def __init__(self, predicted: np.ndarray, nll: np.ndarray) -> None:
        order = predicted.argsort(kind="stable")
        self._predicted, self._nll = predicted[order], nll[order]

    def __call__(self, predicted: np.ndarray) -> np.ndarray:
        """Of a row with these predictions of its tokens, [T]: ascending multiples with mean 1, [T]."""
        like = min(LIKE, len(self._nll))
        first = (self._predicted.searchsorted(predicted) - like // 2).clip(0, len(self._nll) - like)
        values = np.sort(self._nll[first[:, None] + np.arange(like)], axis=None).reshape(-1, like).mean(1)
        mean = float(values.mean())
        return values / mean if mean > 0 else np.ones(len(predicted))


def in_order_of(predicted: np.ndarray, ascending: np.ndarray) -> np.ndarray:
    """Ascending values in the order of the tokens that they are for: the largest to the one predicted hardest.

    Args:
        predicted: NLL of the tokens of a row, [T]; of equals the first in the row is the easier one.
        ascending: as many values, [T].
    """
    placed = np.empty_like(ascending)
    placed[predicted.argsort(kind="stable")] = ascending
    return placed
