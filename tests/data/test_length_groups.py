"""Rows of like length in a batch: which rows meet, what padding is left, and what of the order stays as it was."""

from collections import Counter
from itertools import chain

import datasets
import numpy as np
import pytest

from fixtures.models import make_trainer, step_logs, tiny_model
from hf_unlearn.data import DataCollatorForUnlearning, ForgetRetainDataset
from hf_unlearn.data.epoch_order import EpochOrder
from hf_unlearn.data.length_groups import LengthGroupedDataset, LengthGroups, Walk, group_size, row_lengths


def rows_of(lengths: list[int]) -> datasets.Dataset:
    return datasets.Dataset.from_dict(
        {"input_ids": [[1] * n for n in lengths], "labels": [[-100] + [1] * (n - 1) for n in lengths]}
    )


RAGGED = np.random.default_rng(0)
FORGET = rows_of(RAGGED.integers(16, 257, 120).tolist())
RETAIN = rows_of(RAGGED.integers(16, 257, 400).tolist())


def epoch_of(dataset: ForgetRetainDataset, epoch: int) -> tuple[list[int], list[int]]:
    """Forget rows and retain rows of an epoch, in the order of their items."""
    dataset.set_epoch(epoch)
    return dataset.order().tolist(), [row for place in range(len(dataset)) for row in dataset.retain_rows(place)]


def padding_share(dataset: ForgetRetainDataset, batch: int, epochs: int = 2) -> float:
    collate, real, total = DataCollatorForUnlearning(0), 0, 0
    for epoch in range(epochs):
        dataset.set_epoch(epoch)
        for start in range(0, len(dataset), batch):
            mask = collate(dataset.__getitems__(list(EpochOrder(dataset))[start : start + batch]))["attention_mask"]
            real, total = real + int(mask.sum()), total + mask.numel()
    return 1 - real / total


# The sorting of one epoch, by hand


def test_groups_fall_and_rise_and_retain_rows_do_as_the_forget_rows_that_they_meet():
    groups = LengthGroups(3, forget=np.array([5, 9, 7, 1, 3, 2]), retain=np.array([40, 10, 30, 20, 60, 50]))
    forget, retain = groups.order(np.arange(6), np.arange(6), starts=np.arange(7), turns=np.zeros(6, dtype=np.int64))
    assert forget.tolist() == [1, 2, 0, 3, 5, 4]  # 9 7 5, then 1 2 3
    assert retain.tolist() == [0, 2, 1, 3, 5, 4]  # 40 30 10, then 20 50 60


def test_a_group_ends_where_the_retain_set_begins_anew():
    """Two items of two retain rows, of which there are three: the second takes the last row and the first again."""
    groups = LengthGroups(9, forget=np.array([1, 2]), retain=np.array([10, 30, 20]))
    walk, turns = np.array([0, 1, 2, 0]), np.array([0, 0, 0, 1])
    forget, retain = groups.order(np.array([0, 1]), walk, starts=np.array([0, 2, 4]), turns=turns)
    assert (forget.tolist(), retain.tolist()) == ([1, 0], [1, 2, 0, 0])
    # One item each: the group ends after three.
    groups = LengthGroups(9, forget=np.array([1, 2, 3, 9]), retain=np.array([10, 30, 20]))
    forget, retain = groups.order(np.array([0, 1, 2, 3]), walk, starts=np.arange(5), turns=turns)
    assert (forget.tolist(), retain.tolist()) == ([2, 1, 0, 3], [1, 2, 0, 0])


def test_items_without_a_retain_row():
    groups = LengthGroups(2, forget=np.array([1, 2, 3, 4]), retain=np.array([5, 7]))
    starts, turns = np.array([0, 0, 1, 1, 2]), np.array([0, 0])
    forget, retain = groups.order(np.arange(4), np.arange(2), starts, turns)
    assert (forget.tolist(), retain.tolist()) == ([1, 0, 2, 3], [0, 1])
    assert groups.order(np.arange(4), np.empty(0, np.int64), np.zeros(5, np.int64), np.empty(0, np.int64))[0].size == 4


def test_holdout_rows_fall_and_rise_with_the_forget_rows_of_their_group():
    """Two groups of three items; four holdout rows of which the set begins anew after three."""
    groups = LengthGroups(3, forget=np.array([5, 9, 7, 1, 3, 2]), retain=np.empty(0, dtype=np.int64))
    alone = Walk(np.empty(0, np.int64), np.zeros(7, np.int64), np.empty(0, np.int64))
    unseen = Walk(np.array([2, 0, 1, 0]), np.array([0, 1, 2, 2, 2, 3, 4]), np.array([0, 0, 0, 1]))
    rows = groups.with_holdout(unseen, np.array([8, 4, 6]), groups.groups(alone.starts, alone.turns))
    assert rows.tolist() == [0, 2, 1, 0]  # 8 6, then 4 and, of the next turn, 8


@pytest.mark.parametrize("ratio", [0.25, 1.5])
def test_holdout_rows_of_an_epoch_are_those_without_sorting(ratio):
    options = dict(holdout=RETAIN.select(range(50)), anchor_ratio=ratio, seed=3)
    plain, sorted_ = (
        ForgetRetainDataset(FORGET, RETAIN, **options),
        LengthGroupedDataset(FORGET, RETAIN, group_size=40, **options),
    )
    bare = LengthGroupedDataset(FORGET, RETAIN, group_size=40, seed=3)
    for epoch in range(3):
        assert epoch_of(sorted_, epoch) == epoch_of(bare, epoch), "the other rows stay where they are"
        plain.set_epoch(epoch)
        for start in range(0, 120, 40):
            places = range(start, start + 40)
            unsorted, rows = ([dataset.holdout_rows(place) for place in places] for dataset in (plain, sorted_))
            assert rows != unsorted and [len(each) for each in rows] == [len(each) for each in unsorted]
            assert Counter(chain(*rows)) == Counter(chain(*unsorted))


@pytest.mark.parametrize(("rows", "batch", "size"), [(7, 8, 8), (64, 8, 16), (400, 8, 96), (100_000, 8, 400)])
def test_the_size_of_a_group(rows, batch, size):
    """50 batches, or as many as make four groups."""
    assert group_size(rows, batch) == size


# Lengths


def test_lengths_of_rows_and_of_longer_alternates():
    data = {"input_ids": [[1], [1, 2, 3], [1, 2]], "alternate_input_ids": [[1, 2], [1], [1] * 5]}
    both = datasets.Dataset.from_dict(data)
    listed = [both[i] for i in range(3)]
    assert row_lengths(both).tolist() == row_lengths(listed).tolist() == [2, 3, 5]
    assert row_lengths(both.select_columns(["input_ids"])).tolist() == [1, 3, 2]
    assert row_lengths(both.select([2, 0])).tolist() == [5, 2]
    halves = [both.select_columns(["input_ids"]).select([i]) for i in (1, 2)]
    assert row_lengths(datasets.concatenate_datasets(halves)).tolist() == [3, 2]


# Over epochs


@pytest.mark.parametrize("ratio", [1, 0.5, 2.5])
def test_each_group_has_the_rows_that_it_would_have_without_sorting(ratio):
    plain = ForgetRetainDataset(FORGET, RETAIN, retain_ratio=ratio, seed=3)
    sorted_ = LengthGroupedDataset(FORGET, RETAIN, group_size=30, retain_ratio=ratio, seed=3)
    orders = set()
    for epoch in range(5):
        (forget, retain), (plain_forget, plain_retain) = epoch_of(sorted_, epoch), epoch_of(plain, epoch)
        assert forget != plain_forget and sorted(forget) == list(range(120))
        for start in range(0, 120, 30):
            assert sorted(forget[start : start + 30]) == sorted(plain_forget[start : start + 30]) or ratio == 2.5
        assert Counter(retain) == Counter(plain_retain) and len(retain) == 120 * ratio
        assert [len(sorted_.retain_rows(p)) for p in range(120)] == [len(plain.retain_rows(p)) for p in range(120)]
        orders.add(tuple(forget))
    assert len(orders) == 5


def test_no_retain_row_comes_again_before_all_have_come():
    dataset = LengthGroupedDataset(FORGET, RETAIN.select(range(50)), group_size=40, retain_ratio=1, seed=1)
    seen = [row for epoch in range(10) for row in epoch_of(dataset, epoch)[1]]
    turns = [seen[start : start + 50] for start in range(0, 1200, 50)]
    assert len(turns) == 24 and all(sorted(turn) == list(range(50)) for turn in turns)


def test_an_item_is_a_function_of_seed_epoch_and_row():
    """So a resumed run, a worker and a rank see what one process without a break sees."""
    one, other = (LengthGroupedDataset(FORGET, RETAIN, group_size=24, mismatches=1, seed=5) for _ in range(2))
    for epoch in (0, 1, 0):
        one.set_epoch(epoch)
        whole = [one[p] for p in range(120)]
        other.set_epoch(7)
        assert other[0] != whole[0]
        other.set_epoch(epoch)
        assert other.__getitems__([100, 3]) == [whole[100], whole[3]]
    other.reseed(6)
    assert epoch_of(other, 0) != epoch_of(one, 0)
    with pytest.raises(IndexError):
        one[120]


# Padding


@pytest.mark.parametrize(("batch", "at_most"), [(4, 0.18), (8, 0.26)])
def test_batches_hold_little_padding(batch, at_most):
    plain = padding_share(ForgetRetainDataset(FORGET, RETAIN), batch)
    grouped = padding_share(LengthGroupedDataset(FORGET, RETAIN, group_size=group_size(120, batch)), batch)
    assert grouped < at_most < 0.35 < plain


def test_padding_without_retain_rows():
    assert padding_share(LengthGroupedDataset(FORGET, group_size=40), 4) < 0.1


# Where a sampler orders the forget rows itself (batch_rebalance)


def test_each_forget_row_meets_retain_rows_of_like_length():
    dataset = LengthGroupedDataset(FORGET, RETAIN, group_size=120, seed=2)
    plain = ForgetRetainDataset(FORGET, RETAIN, seed=2)
    lengths, retain_lengths = row_lengths(FORGET), row_lengths(RETAIN)
    seen = []
    for epoch in range(3):
        plain_retain = epoch_of(plain, epoch)[1]
        dataset.set_epoch(epoch)
        retain = [row["row"] for item in dataset for row in item["retain"]]
        assert [item["row"] for item in dataset] == list(range(120)) and Counter(retain) == Counter(plain_retain)
        assert np.corrcoef(lengths, retain_lengths[retain])[0, 1] > 0.97
        seen += retain
    assert len(set(seen)) == 360


def test_lengths_that_the_user_gives():
    """Rows of one length in tokens, sorted by what they were said to cost."""
    rows, cost = rows_of([16] * 40), np.random.default_rng(1).permutation(40)
    dataset = LengthGroupedDataset(rows, rows, group_size=40, lengths=(cost, -cost))
    forget, retain = epoch_of(dataset, 0)
    assert cost[forget].tolist() == sorted(cost, reverse=True)
    assert cost[retain].tolist() == sorted(cost)


# In the trainer


@pytest.mark.parametrize("strategy", ["group_by_length", "batch_rebalance"])
def test_a_run_that_is_resumed_goes_on_as_it_would_have(tmp_path, strategy):
    """From the fourth step of nine, six being an epoch."""

    def losses(resume: str | None) -> list[float]:
        trainer = make_trainer(
            tmp_path,
            tiny_model(),
            forget_loss="grad_ascent",
            train_sampling_strategy=strategy,
            per_device_train_batch_size=2,
            max_steps=9,
            save_strategy="steps",
            save_steps=4,
        )
        assert isinstance(trainer.train_dataset, LengthGroupedDataset)
        trainer.train(resume_from_checkpoint=resume)
        return [log["loss"] for log in step_logs(trainer)]

    whole = losses(None)
    assert losses(str(tmp_path / "out/checkpoint-4")) == pytest.approx(whole, rel=1e-6)
    assert len(set(whole)) == 9
