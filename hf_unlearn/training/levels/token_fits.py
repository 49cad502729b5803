"""From what n-grams say of single tokens to the NLL that the model gives them: a monotone curve, or boosted trees."""

from collections.abc import Callable

import numpy as np

from .ngram_columns import FOUR

TokenFit = Callable[[np.ndarray], np.ndarray]  # from columns [T, C] to nats of each token, [T]

# Chosen on calibration rows of TOFU (docs/levels.md). Every leaf holds 60 tokens: a few rows cannot carry it.
_TREES = {"max_iter": 80, "learning_rate": 0.06, "max_leaf_nodes": 12, "min_samples_leaf": 60}


def fit_curve(columns: np.ndarray, nll: np.ndarray, weights: np.ndarray) -> TokenFit:
    """The isotonic regression of NLL on that of the 4-gram, straight between what was seen of it.

    Args:
        columns: of tokens, [T, C]; see `ngram_columns`.
        nll: of the same tokens under the model, [T], nats.
        weights: of the tokens, [T].
    """
    from scipy.optimize import isotonic_regression  # takes a quarter of a second, which most runs have no use for

    values, place = np.unique(columns[:, FOUR], return_inverse=True)
    mass = np.bincount(place, weights)
    heights = isotonic_regression(np.bincount(place, weights * nll) / mass, weights=mass).x
    return lambda tokens: np.interp(tokens[:, FOUR], values, heights)


def fit_trees(columns: np.ndarray, nll: np.ndarray, weights: np.ndarray) -> TokenFit:
    """Gradient-boosted regression trees of all columns; arguments as those of `fit_curve`."""
    from sklearn.ensemble import HistGradientBoostingRegressor  # takes a second

    trees = HistGradientBoostingRegressor(**_TREES, early_stopping=False, random_state=0)
    trees.fit(columns, nll, sample_weight=weights)
    return lambda tokens: np.asarray(trees.predict(tokens))
