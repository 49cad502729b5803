"""The shape of unseen rows: how the NLL of a row's tokens lies around the row's mean."""

import numpy as np

from ...model.score_rows import RowLogps


class Shape:
    """The NLL of a token of an unseen row as a multiple of the row's mean, by its rank among the row's tokens.

    Args:
        unseen: what the model gives rows that it never saw.
    """

    def __init__(self, unseen: RowLogps) -> None:
        nll, lengths = -unseen.logps.double().numpy(), unseen.lengths.numpy()
        means = np.repeat(unseen.nll_per_token().double().numpy(), lengths)
        # A row that is known for certain has no shape.
        self._multiples = np.sort(nll[means > 0] / means[means > 0])

    def __call__(self, count: int) -> np.ndarray:
        """Of a row of `count` tokens: ascending multiples with mean 1, [count].

        The k-th (from 0) is the (k + 1/2) / count quantile of all tokens of all unseen rows, and all are divided by
        their mean, so that a row whose tokens are there has its mean at the row's level.
        """
        if not len(self._multiples):
            return np.ones(count)
        multiples = np.quantile(self._multiples, (np.arange(count) + 0.5) / count)
        mean = multiples.mean()
        return multiples / mean if mean > 0 else np.ones(count)
