"""What n-grams and a row itself say of each of its answer tokens, side by side."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ...data.token_arrays import is_target, token_arrays

ORDERS = (1, 2, 4, 6)
FOUR = ORDERS.index(4)  # column of the 4-gram


def copied_columns(rows: Iterable[Mapping[str, Any]]) -> np.ndarray:
    """Whether each answer token stood in its row before, and whether it did after the same token, [T, 2] of 0 and 1.

    A model that has never seen a row copies names and phrases from its question; n-grams of other rows cannot.

    Args:
        rows: tokenised.
    """
    columns = []
    for ids, labels in token_arrays(rows):
        before = np.concatenate([[-1], ids[:-1]])
        pairs = (before + 1).astype(np.int64) * (int(ids.max()) + 1) + ids
        columns.append(np.stack([_seen_before(ids), _seen_before(pairs)], axis=1)[is_target(labels)])
    return np.concatenate(columns).astype(float)


def ngram_columns(nll: Sequence[np.ndarray], rows: Iterable[Mapping[str, Any]]) -> np.ndarray:
    """[T, C]: the NLL under an n-gram of each of `ORDERS`, then `copied_columns`.

    Args:
        nll: of the answer tokens of `rows` under each n-gram, [T] each, nats.
        rows: tokenised.
    """
    return np.hstack([np.stack(nll, axis=1), copied_columns(rows)])


def _seen_before(values: np.ndarray) -> np.ndarray:
    """Of each value, whether it is among those before it."""
    seen = np.ones(len(values), bool)
    seen[np.unique(values, return_index=True)[1]] = False
    return seen
