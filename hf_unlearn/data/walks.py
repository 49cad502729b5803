"""Walks through a set that joins the forget rows: how many rows of it each of them meets, and in which order."""

import math

import numpy as np

from ..errors import value_error

_WITHOUT = {
    "retain_ratio": "pass retain_loss='none' to train on forget rows alone",
    "anchor_ratio": "pass anchor_loss='none' to train without holdout rows",
}


def check_ratio(name: str, ratio: float) -> float:
    """`retain_ratio` or `anchor_ratio` as a float, or a ValueError when it is not a positive finite number."""
    if isinstance(ratio, bool) or not isinstance(ratio, int | float) or not 0 < ratio < math.inf:
        raise value_error(name, "a finite number above 0", ratio, _WITHOUT[name])
    return float(ratio)


def walk_steps(index: int, ratio: float) -> range:
    """Steps of a walk that belong to the index-th forget row since it began, with `ratio` rows for each."""
    # Differences of floors give a fractional ratio exactly, without drift over epochs.
    return range(math.floor(index * ratio), math.floor((index + 1) * ratio))


def permutation(size: int, *key: int) -> np.ndarray:
    """The numbers below `size` in the order of a random stream, which its key says, [size]."""
    return np.random.default_rng(key).permutation(size)
