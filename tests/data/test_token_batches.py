"""How the rows of a micro-batch are cut by tokens, row by row. Not what is trained on them."""

from itertools import pairwise
from typing import Any

import pytest

from hf_unlearn.data import DataCollatorForUnlearning
from hf_unlearn.data.batch import IndexingCollator, count_answers, parts_of
from hf_unlearn.data.roles import Role
from hf_unlearn.data.token_batches import TokenLimit


def row(tokens: int, number: int, **more: Any) -> dict[str, Any]:
    return {"input_ids": [7] * tokens, "labels": [-100, *[7] * (tokens - 1)], "row": number, **more}


ITEMS = [
    row(2, 0, retain=[row(9, 10)], mismatch=[]),
    row(8, 1, retain=[row(3, 11), row(2, 12)], mismatch=[row(4, -1)], alternate=row(5, 1), anchor=[row(6, 20)]),
]


def seen(batch: dict[str, Any]) -> list[tuple[Role, int, int]]:
    """Role, row and the forget row that each row of a batch belongs to."""
    rows = zip(batch["role"].tolist(), batch["row"].tolist(), batch["source"].tolist(), strict=True)
    return [(Role(role), number, source) for role, number, source in rows]


@pytest.mark.parametrize("padded", [True, False])
def test_rows_of_like_length_share_a_batch(padded):
    # Sorted: retain 9; forget 8 with its mismatch and alternate; holdout 6; retain 3, forget 2, retain 2.
    limit = TokenLimit(24 if padded else 17, padded=padded)
    batch = IndexingCollator(DataCollatorForUnlearning(0, padding_free=not padded), limit)(ITEMS)
    first, second, third = (seen(part) for part in parts_of(batch))
    assert first == [(Role.RETAIN, 10, -1)]
    assert second == [(Role.FORGET, 1, 0), (Role.ALTERNATE, 1, 0), (Role.MISMATCH, -1, 0)]
    assert third == [(Role.FORGET, 0, 0), (Role.RETAIN, 11, -1), (Role.RETAIN, 12, -1), (Role.HOLDOUT, 20, -1)]
    assert [part["input_ids"].numel() for part in parts_of(batch)] == ([9, 24, 24] if padded else [9, 17, 13])


def test_the_parts_have_the_rows_of_the_batch_once_and_its_counts():
    batch = IndexingCollator(DataCollatorForUnlearning(0), TokenLimit(1))(ITEMS)
    parts = parts_of(batch)
    assert len(parts) == 6  # no row is too long for a batch of its own
    whole = sorted((role, number) for role, number, _ in seen(batch))
    assert sorted((role, number) for part in parts for role, number, _ in seen(part)) == whole
    assert sum(count_answers(part) for part in parts).tolist() == count_answers(batch).tolist()
    widths = [part["input_ids"].shape[1] for part in parts]
    assert all(one >= other for one, other in pairwise(widths))  # the most memory is taken first


def test_what_fits_is_left_whole():
    for limit in (None, TokenLimit(10_000)):
        batch = IndexingCollator(DataCollatorForUnlearning(0), limit)(ITEMS)
        assert "parts" not in batch and parts_of(batch)[0] is batch


def test_rows_that_are_evaluated_are_not_cut():
    rows = [row(3, 0), row(9, 1)]
    batch = IndexingCollator(DataCollatorForUnlearning(0), TokenLimit(4))(rows)
    assert "parts" not in batch
