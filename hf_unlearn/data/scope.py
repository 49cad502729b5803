"""The scope of a forget request: rows near what is to be forgotten, dealt to train or to test, and rows far from it.

Nearness in words is measured by `near_neighbours`; how much a row to keep moves with the forget rows' gradient, by
`influence_scores` in model/influence.py.
"""

from dataclasses import dataclass
from typing import Any, Literal

import datasets
import numpy as np

from ..errors import input_error, value_error
from .neighbours import Encoder, Neighbours, Rows, RowText, near_neighbours, row_texts

__all__ = [
    "NearRows",
    "Neighbours",
    "Scope",
    "deal_near_rows",
    "near_neighbours",
    "split_scope",
]


@dataclass(frozen=True)
class Scope:
    """A pool of rows to keep, in two: rows `near` the forget set and the `far` rest, each in the pool's order."""

    near: datasets.Dataset
    far: datasets.Dataset


@dataclass(frozen=True)
class NearRows:
    """Near rows in two parts that share no text: hard retain rows to `train` on, and a `test` set never trained on."""

    train: datasets.Dataset
    test: datasets.Dataset


def split_scope(
    forget: Rows,
    pool: datasets.Dataset,
    *,
    near: float = 0.1,
    k: int = 1,
    method: Literal["bm25", "embedding"] = "bm25",
    text: RowText | None = None,
    model: Encoder | None = None,
    batch_size: int = 32,
) -> Scope:
    """Split a pool of rows to keep by how near they are to the forget set.

    Near rows are where forgetting spills over: train on them as hard retain rows, or test on them as rows out of
    scope; `deal_near_rows` does both without training on what tests.

    Args:
        forget: rows in any accepted format but tokenised ones.
        pool: likewise; no row of it may be a forget row.
        near: a share of the pool (a float between 0 and 1), or a number of rows (an int).
        k, method, text, model, batch_size: of `near_neighbours`.

    Raises:
        ValueError: a pool row with the prompt and completion of a forget row, or with `text` the same text (whitespace
            aside), a `near` that leaves one side empty, or what `near_neighbours` raises.
    """
    _require_dataset(pool, "the pool")
    _require_no_forget_rows(forget, pool, text)
    rows = len(pool)
    is_count = isinstance(near, int) and not isinstance(near, bool)
    count = int(near) if is_count else max(1, round(near * rows)) if 0 < near < 1 else 0
    if not 0 < count < rows:
        raise value_error(
            "near", f"a share between 0 and 1, or a number of rows below {rows}, those of the pool", near
        )
    neighbours = near_neighbours(forget, pool, k=k, method=method, text=text, model=model, batch_size=batch_size)
    return Scope(
        near=pool.select(np.sort(neighbours.order[:count])), far=pool.select(np.sort(neighbours.order[count:]))
    )


def deal_near_rows(near: datasets.Dataset, *, test: float = 0.5, seed: int = 0) -> NearRows:
    """Deal near rows into hard retain rows and a near test set, since rows that are trained on cannot test.

    Rows of the same text (whitespace aside) go to the same part. Either part is in the order of `near`.

    Args:
        near: `split_scope(...).near`.
        test: share of the rows that test, between 0 and 1; met as closely as rows of the same text allow.
        seed: of the draw.

    Raises:
        ValueError: fewer than two different rows, or a share that leaves one part empty.
    """
    _require_dataset(near, "the near rows")
    texts = row_texts(near, "retain")
    places: dict[str, list[int]] = {}
    for place, text in enumerate(texts):
        places.setdefault(text, []).append(place)
    groups = list(places.values())
    wanted = round(test * len(texts)) if 0 < test < 1 else 0
    tested: list[int] = []
    for number in np.random.default_rng(seed).permutation(len(groups)):
        # A group that goes further past the mark than the rows so far stop short of it stays out.
        if abs(len(tested) + len(groups[number]) - wanted) < abs(len(tested) - wanted):
            tested += groups[number]
    if not 0 < len(tested) < len(texts):
        raise input_error(
            expected="a share of near rows between 0 and 1 that leaves rows to train on and rows to test on",
            got=f"test={test!r} of {len(texts)} rows with {len(groups)} different texts",
            why="rows that are trained on cannot test",
            fix="pass test=0.5, and a larger `near` to split_scope",
        )
    trained = sorted(set(range(len(texts))).difference(tested))
    return NearRows(train=near.select(trained), test=near.select(sorted(tested)))


def _require_dataset(rows: Any, what: str) -> None:
    if not isinstance(rows, datasets.Dataset):
        raise input_error(
            expected=f"{what} as a datasets.Dataset",
            got=f"a {type(rows).__name__}",
            why="the parts of the split are subsets of it",
            fix="datasets.Dataset.from_list(rows); of a DatasetDict pass one split",
        )


def _require_no_forget_rows(forget: Rows, pool: datasets.Dataset, text: RowText | None) -> None:
    forgotten = set(row_texts(forget, "forget", text))
    shared = [place for place, kept in enumerate(row_texts(pool, "retain", text)) if kept in forgotten]
    if shared:
        pairs = "zip({0}['prompt'], {0}['completion'])" if text is None else "map(text, {0})"
        raise input_error(
            expected="a pool without rows of the forget set",
            got=f"{len(shared)} rows that are also forget rows, the first of them row {shared[0]}",
            why="a row cannot be both forgotten and kept",
            fix=f"drop them, e.g. forgotten = set({pairs.format('forget')}); "
            f"pool = pool.select([i for i, row in enumerate({pairs.format('pool')}) if row not in forgotten])",
        )
