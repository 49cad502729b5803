"""The batch that the collator makes, number by number. Not which rows meet in it."""

import pytest
import torch

from hf_unlearn.data import DataCollatorForUnlearning, Role

PAD = 9

FORGET = {"input_ids": [1, 5, 6], "labels": [-100, 5, 6], "row": 7}
OTHER_FORGET = {"input_ids": [1, 4], "labels": [-100, 4], "row": 2}
RETAIN = {"input_ids": [1, 2, 3, 4], "labels": [-100, -100, 3, 4], "row": 0}
OTHER_RETAIN = {"input_ids": [1, 8], "labels": [-100, 8], "row": 3}
ALTERNATE = {"input_ids": [1, 5, 2], "labels": [-100, -100, 2], "row": 2}
MISMATCH = {"input_ids": [1, 4, 8], "labels": [-100, -100, 8]}


def tensors(**values) -> dict[str, torch.Tensor]:
    return {name: torch.tensor(value) for name, value in values.items()}


def assert_equal(batch: dict, expected: dict) -> None:
    assert batch.keys() == expected.keys()
    for name, tensor in expected.items():
        assert batch[name].dtype == torch.int64, name
        assert batch[name].tolist() == tensor.tolist(), name


def test_a_batch_of_every_role():
    items = [
        {**FORGET, "retain": [RETAIN], "mismatch": []},
        {**OTHER_FORGET, "retain": [OTHER_RETAIN], "mismatch": [MISMATCH, MISMATCH], "alternate": ALTERNATE},
    ]
    assert_equal(
        DataCollatorForUnlearning(PAD)(items),
        tensors(
            input_ids=[
                [1, 5, 6, 9],
                [1, 4, 9, 9],
                [1, 2, 3, 4],
                [1, 8, 9, 9],
                [1, 5, 2, 9],
                [1, 4, 8, 9],
                [1, 4, 8, 9],
            ],
            attention_mask=[
                [1, 1, 1, 0],
                [1, 1, 0, 0],
                [1, 1, 1, 1],
                [1, 1, 0, 0],
                [1, 1, 1, 0],
                [1, 1, 1, 0],
                [1, 1, 1, 0],
            ],
            labels=[
                [-100, 5, 6, -100],
                [-100, 4, -100, -100],
                [-100, -100, 3, 4],
                [-100, 8, -100, -100],
                [-100, -100, 2, -100],
                [-100, -100, 8, -100],
                [-100, -100, 8, -100],
            ],
            role=[0, 0, 1, 1, 2, 3, 3],
            # The alternate and both mismatches belong to the second forget row.
            source=[0, 1, -1, -1, 1, 1, 1],
            row=[7, 2, 0, 3, 2, -1, -1],
        ),
    )


HOLDOUT = {"input_ids": [1, 7, 3], "labels": [-100, 7, 3], "row": 5}
ANCHORED = [
    {**FORGET, "retain": [RETAIN], "mismatch": [], "anchor": []},
    {**OTHER_FORGET, "retain": [{**OTHER_RETAIN, "alternate": ALTERNATE}], "mismatch": [], "anchor": [HOLDOUT]},
]


def test_holdout_rows_come_last():
    """After the alternates of retain rows; they belong to no forget row, and their number is that of their own set."""
    assert_equal(
        DataCollatorForUnlearning(PAD)(ANCHORED),
        tensors(
            input_ids=[[1, 5, 6, 9], [1, 4, 9, 9], [1, 2, 3, 4], [1, 8, 9, 9], [1, 5, 2, 9], [1, 7, 3, 9]],
            attention_mask=[[1, 1, 1, 0], [1, 1, 0, 0], [1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 0]],
            labels=[
                [-100, 5, 6, -100],
                [-100, 4, -100, -100],
                [-100, -100, 3, 4],
                [-100, 8, -100, -100],
                [-100, -100, 2, -100],
                [-100, 7, 3, -100],
            ],
            role=[0, 0, 1, 1, 4, 5],
            source=[0, 1, -1, -1, -1, -1],
            row=[7, 2, 0, 3, 2, 5],
        ),
    )


def test_holdout_rows_come_last_in_one_line():
    assert_equal(
        DataCollatorForUnlearning(PAD, padding_free=True)(ANCHORED),
        tensors(
            input_ids=[[1, 5, 6, 1, 4, 1, 2, 3, 4, 1, 8, 1, 5, 2, 1, 7, 3]],
            labels=[[-100, 5, 6, -100, 4, -100, -100, 3, 4, -100, 8, -100, -100, 2, -100, 7, 3]],
            position_ids=[[0, 1, 2, 0, 1, 0, 1, 2, 3, 0, 1, 0, 1, 2, 0, 1, 2]],
            row_lengths=[3, 2, 4, 2, 3, 3],
            role=[0, 0, 1, 1, 4, 5],
            source=[0, 1, -1, -1, -1, -1],
            row=[7, 2, 0, 3, 2, 5],
        ),
    )


def test_padding_on_the_left():
    items = [{**FORGET, "retain": [RETAIN]}]
    assert_equal(
        DataCollatorForUnlearning(PAD, padding_side="left")(items),
        tensors(
            input_ids=[[9, 1, 5, 6], [1, 2, 3, 4]],
            attention_mask=[[0, 1, 1, 1], [1, 1, 1, 1]],
            labels=[[-100, -100, 5, 6], [-100, -100, 3, 4]],
            position_ids=[[0, 0, 1, 2], [0, 1, 2, 3]],
            role=[0, 1],
            source=[0, -1],
            row=[7, 0],
        ),
    )


@pytest.mark.parametrize(("multiple", "length"), [(None, 3), (1, 3), (2, 4), (3, 3), (8, 8)])
@pytest.mark.parametrize("side", ["right", "left"])
def test_length_as_a_multiple(multiple, length, side):
    batch = DataCollatorForUnlearning(PAD, pad_to_multiple_of=multiple, padding_side=side)([FORGET])
    padding = length - 3
    ids, labels, mask = [1, 5, 6], [-100, 5, 6], [1, 1, 1]
    if side == "right":
        expected = (ids + [9] * padding, labels + [-100] * padding, mask + [0] * padding)
    else:
        expected = ([9] * padding + ids, [-100] * padding + labels, [0] * padding + mask)
    assert tuple(batch[name][0].tolist() for name in ("input_ids", "labels", "attention_mask")) == expected


def test_rows_without_a_pairing_are_forget_rows():
    # As evaluation sets and rows outside of training come: token ids and labels alone.
    rows = [{"input_ids": [1, 5], "labels": [-100, 5]}, {"input_ids": [1, 6, 7], "labels": [-100, 6, 7]}]
    batch = DataCollatorForUnlearning(PAD)(rows)
    assert batch["role"].tolist() == [Role.FORGET, Role.FORGET]
    assert (batch["source"].tolist(), batch["row"].tolist()) == ([0, 1], [-1, -1])


def test_a_real_token_that_is_the_padding_token_stays():
    row = {"input_ids": [1, 9, 5, 9], "labels": [-100, -100, 5, 9]}
    batch = DataCollatorForUnlearning(PAD)([row, {"input_ids": [1, 5, 6, 7, 8], "labels": [-100] * 4 + [8]}])
    assert batch["attention_mask"][0].tolist() == [1, 1, 1, 1, 0]
    assert batch["labels"][0].tolist() == [-100, -100, 5, 9, -100]


def test_several_retain_rows_an_item_and_none():
    items = [{**FORGET, "retain": [RETAIN, OTHER_RETAIN]}, {**OTHER_FORGET, "retain": []}]
    batch = DataCollatorForUnlearning(PAD)(items)
    assert batch["role"].tolist() == [0, 0, 1, 1]
    assert batch["row"].tolist() == [7, 2, 0, 3]


def test_tensors_as_rows():
    row = {"input_ids": torch.tensor([1, 5]), "labels": torch.tensor([-100, 5])}
    assert DataCollatorForUnlearning(PAD)([row])["input_ids"].tolist() == [[1, 5]]
