"""Which rows meet, in which order, in every epoch. Not how they are tokenised or padded."""

from collections import Counter

import datasets
import pytest
import torch

from hf_unlearn.data import ForgetRetainDataset, ForgetRetainStream
from hf_unlearn.data.epoch_order import EpochOrder
from hf_unlearn.data.row_items import mismatch_row
from hf_unlearn.data.walks import check_ratio


def token_rows(first: int, count: int) -> list[dict]:
    """Rows whose prompt is [1, 2] and whose one answer token says which row it is."""
    return [{"input_ids": [1, 2, first + i], "labels": [-100, -100, first + i]} for i in range(count)]


FORGET, RETAIN = token_rows(100, 6), token_rows(200, 10)


def pairs(forget=6, retain=10, **arguments) -> ForgetRetainDataset:
    return ForgetRetainDataset(token_rows(100, forget), token_rows(200, retain), **arguments)


def walk(dataset: ForgetRetainDataset, epochs: int, kind: str = "retain") -> list[list[int]]:
    """The answer tokens of the rows of a kind, item after item, over epochs."""
    found = []
    for epoch in range(epochs):
        dataset.set_epoch(epoch)
        found += [[row["input_ids"][-1] for row in dataset[i][kind]] for i in EpochOrder(dataset)]
    return found


def flat(lists: list[list[int]]) -> list[int]:
    return [value for each in lists for value in each]


def forget_order(dataset, epoch: int) -> list[int]:
    dataset.set_epoch(epoch)
    return [dataset[i]["row"] for i in EpochOrder(dataset)]


# Forget rows


def test_every_epoch_has_every_forget_row_once_in_an_order_of_its_own():
    orders = [forget_order(pairs(forget=20), epoch) for epoch in range(4)]
    assert [sorted(order) for order in orders] == [list(range(20))] * 4
    assert len({tuple(order) for order in orders}) == 4
    assert orders[0] != list(range(20))


@pytest.mark.parametrize("epoch", [0, 3])
def test_item_i_is_row_i(epoch):
    dataset = pairs()
    dataset.set_epoch(epoch)
    for i, item in enumerate(dataset):
        assert item["row"] == i and item["input_ids"] == FORGET[i]["input_ids"]
        (kept,) = item["retain"]
        assert (
            kept["input_ids"] == RETAIN[kept["row"]]["input_ids"] and kept["labels"] == RETAIN[kept["row"]]["labels"]
        )


def test_without_shuffling_the_forget_rows_keep_their_order():
    dataset = pairs(shuffle=False)
    assert forget_order(dataset, 0) == forget_order(dataset, 1) == list(range(6))
    assert flat(walk(dataset, 1)) != flat(walk(dataset, 2))[6:], "the retain walk is shuffled all the same"


# Retain rows


@pytest.mark.parametrize(("forget", "retain", "ratio"), [(6, 10, 1), (6, 10, 3), (10, 6, 1), (7, 5, 2), (10, 50, 1)])
def test_no_retain_row_comes_again_before_all_have_come(forget, retain, ratio):
    seen = flat(walk(pairs(forget, retain, retain_ratio=ratio), epochs=12))
    assert len(seen) == 12 * forget * ratio
    turns = [seen[start : start + retain] for start in range(0, len(seen) - retain + 1, retain)]
    assert turns and all(sorted(turn) == list(range(200, 200 + retain)) for turn in turns)
    assert len(turns) == 1 or len({tuple(turn) for turn in turns}) > 1, "each turn in an order of its own"


@pytest.mark.parametrize("ratio", [0.5, 0.3, 1.5, 2.25, 1 / 3])
def test_a_fractional_ratio_is_exact_over_epochs_and_even_within(ratio):
    counts = [len(rows) for rows in walk(pairs(retain_ratio=ratio), epochs=10)]
    total = 0
    for items, count in enumerate(counts, 1):
        total += count
        assert total == int(items * ratio + 1e-9)
    assert set(counts) <= {int(ratio), int(ratio) + 1}


@pytest.mark.parametrize("ratio", [0, -1, float("nan"), float("inf"), True, "2", None])
def test_ratios_that_are_none(ratio):
    with pytest.raises(ValueError, match="retain_ratio must be a finite number above 0"):
        check_ratio("retain_ratio", ratio)


def test_no_retain_rows_where_none_are_wanted():
    assert flat(walk(ForgetRetainDataset(FORGET), 2)) == []
    lent = ForgetRetainDataset(FORGET, RETAIN, pair_retain=False, mismatches=2)
    assert flat(walk(lent, 2)) == [] and len(flat(walk(lent, 2, "mismatch"))) == 24


# The order is a function of seed, epoch and row alone


def test_an_item_does_not_depend_on_what_was_read_before():
    one, other = (pairs(retain_ratio=1.5, mismatches=2) for _ in range(2))
    for epoch in range(3):
        one.set_epoch(epoch)
        in_order = [one[p] for p in range(6)]
        # A resumed run jumps into the middle of an epoch; ranks and workers take places of their own.
        other.set_epoch(epoch)
        for places in ([4, 5], [3, 0], [1, 2]):
            assert other.__getitems__(places) == [in_order[p] for p in places]
    one.set_epoch(0)
    assert one[3] == pairs(retain_ratio=1.5, mismatches=2)[3]


def test_seeds():
    for kind in ("retain", "mismatch"):
        assert walk(pairs(mismatches=2), 2, kind) == walk(pairs(mismatches=2), 2, kind)
        assert walk(pairs(mismatches=2), 2, kind) != walk(pairs(mismatches=2, seed=1), 2, kind)
    assert forget_order(pairs(forget=20), 1) == forget_order(pairs(forget=20), 1)
    assert forget_order(pairs(forget=20), 1) != forget_order(pairs(forget=20, seed=1), 1)
    # Seed 0 in epoch 1 is not seed 1 in epoch 0, as it would be if the two were added.
    assert forget_order(pairs(forget=20), 1) != forget_order(pairs(forget=20, seed=1), 0)


def test_a_worker_process_sees_the_epoch():
    def rows(item):
        return item["row"], [row["row"] for row in item["retain"]]

    dataset, other = pairs(), pairs()
    loader = torch.utils.data.DataLoader(
        dataset,
        sampler=EpochOrder(dataset),
        batch_size=None,
        num_workers=1,
        persistent_workers=True,
        collate_fn=rows,
    )
    for epoch in (0, 1, 2):
        dataset.set_epoch(epoch)
        assert [row for row, _ in list(loader)] == forget_order(other, epoch)
        assert list(loader) == [rows(other[i]) for i in EpochOrder(other)]


def test_rows_beyond_the_end():
    with pytest.raises(IndexError):
        pairs()[6]
    with pytest.raises(IndexError):
        pairs()[-1]
    assert len(list(iter(pairs()))) == len(pairs()) == 6


def test_a_dataset_reads_as_a_list_does():
    arguments = dict(retain_ratio=1.5, mismatches=2)
    lists = ForgetRetainDataset(FORGET, RETAIN, **arguments)
    arrow = ForgetRetainDataset(datasets.Dataset.from_list(FORGET), datasets.Dataset.from_list(RETAIN), **arguments)
    assert arrow.__getitems__([0, 5, 2]) == lists.__getitems__([0, 5, 2])


def test_alternates_come_with_their_forget_row():
    forget = [{**row, "alternate_input_ids": [1, 2, 50 + i], "alternate_labels": [-100, -100, 50 + i]}
              for i, row in enumerate(FORGET)]  # fmt: skip
    dataset = ForgetRetainDataset(forget, RETAIN)
    for item in (dataset[p] for p in range(6)):
        row = item["row"]
        assert item["alternate"] == {"input_ids": [1, 2, 50 + row], "labels": [-100, -100, 50 + row], "row": row}


# Mismatches


def test_a_mismatch_is_a_retain_answer_under_a_forget_prompt():
    forget = {"input_ids": [1, 11, 12, 13], "labels": [-100, -100, 12, 13]}
    retain = {"input_ids": [1, 21, 22, 23, 24], "labels": [-100, -100, -100, 23, 24]}
    expected = {"input_ids": [1, 11, 23, 24], "labels": [-100, -100, 23, 24]}
    assert mismatch_row(forget, retain, None) == expected == mismatch_row(forget, retain, 4)
    assert mismatch_row(forget, retain, 3) == {"input_ids": [1, 11, 23], "labels": [-100, -100, 23]}


def test_mismatches_are_drawn_afresh_for_every_row_and_epoch():
    drawn = walk(pairs(retain=50, mismatches=5), epochs=3, kind="mismatch")
    assert all(len(set(answers)) == 5 for answers in drawn), "without replacement within a row"
    assert len({tuple(answers) for answers in drawn}) == len(drawn) == 18


def test_mismatches_are_drawn_evenly():
    counts = Counter(flat(walk(pairs(retain=10, mismatches=3), epochs=200, kind="mismatch")))
    expected = 200 * 6 * 3 / 10
    assert len(counts) == 10 and all(abs(count - expected) < 5 * expected**0.5 for count in counts.values())


@pytest.mark.parametrize("retain", [None, RETAIN[:2]])
def test_more_mismatches_than_retain_rows(retain):
    with pytest.raises(ValueError, match="at least 3 rows"):
        ForgetRetainDataset(FORGET, retain, mismatches=3)


def test_empty_sets():
    with pytest.raises(ValueError, match="one row in the forget set"):
        ForgetRetainDataset([], RETAIN)
    with pytest.raises(ValueError, match="one row in the retain set"):
        ForgetRetainDataset(FORGET, [])


# Streams


class Stream(torch.utils.data.IterableDataset):
    def __init__(self, rows: list[dict]) -> None:
        self.rows = rows

    def __iter__(self):
        return iter(self.rows)


def rows_of(stream: ForgetRetainStream, epoch: int = 0) -> tuple[list[int], list[list[int]]]:
    stream.set_epoch(epoch)
    items = list(stream)
    return [item["input_ids"][-1] for item in items], [[row["input_ids"][-1] for row in i["retain"]] for i in items]


def test_a_forget_stream_keeps_its_order():
    forget, retain = rows_of(ForgetRetainStream(Stream(FORGET), RETAIN))
    assert forget == list(range(100, 106))
    assert len(set(flat(retain))) == 6


def test_a_retain_stream_is_read_again_when_it_ends():
    forget, retain = rows_of(ForgetRetainStream(FORGET, Stream(RETAIN[:4]), retain_ratio=1.5))
    assert sorted(forget) == list(range(100, 106)) != forget
    assert flat(retain) == [200, 201, 202, 203, 200, 201, 202, 203, 200]
    assert [len(rows) for rows in retain] == [1, 2] * 3


def test_a_set_beside_a_stream_is_walked_without_replacement():
    stream = ForgetRetainStream(Stream(token_rows(100, 25)), RETAIN)
    turns = [flat(rows_of(stream, epoch)[1])[:20] for epoch in (0, 1)]
    for turn in turns:
        assert sorted(turn[:10]) == sorted(turn[10:]) == list(range(200, 210))
    assert turns[0] != turns[1] and turns[0] == flat(rows_of(stream, 0)[1])[:20]


def test_a_stream_of_datasets_is_told_the_epoch():
    shuffled = datasets.Dataset.from_list(FORGET).to_iterable_dataset().shuffle(seed=3, buffer_size=6)
    stream = ForgetRetainStream(shuffled, RETAIN)
    first, second = (rows_of(stream, epoch)[0] for epoch in (0, 1))
    assert sorted(first) == sorted(second) and first != second == rows_of(stream, 1)[0]


def test_a_stream_has_the_pairs_of_a_set_in_mismatches_too():
    items = list(ForgetRetainStream(Stream(FORGET), RETAIN, pair_retain=False, mismatches=3))
    assert [item["retain"] for item in items] == [[]] * 6
    assert all(len({row["input_ids"][-1] for row in item["mismatch"]}) == 3 for item in items)
    assert [row["input_ids"][:2] for row in items[0]["mismatch"]] == [[1, 2]] * 3


def test_mismatches_from_a_stream():
    with pytest.raises(ValueError, match="a retain set with a length"):
        ForgetRetainStream(FORGET, Stream(RETAIN), mismatches=1)


def test_an_empty_retain_stream():
    with pytest.raises(ValueError, match="one row in the retain set"):
        list(ForgetRetainStream(FORGET, Stream([])))


# Holdout rows


def anchored(ratio: float, **arguments) -> ForgetRetainDataset:
    return pairs(holdout=token_rows(300, 7), anchor_ratio=ratio, **arguments)


@pytest.mark.parametrize("ratio", [0.25, 0.7, 1, 2.5])
def test_holdout_rows_are_a_walk_of_their_own(ratio):
    """Exact counts for any ratio, none again before all have come, and the other rows as they are without."""
    items = walk(anchored(ratio), epochs=12, kind="anchor")
    assert [len(each) for each in items] == [int((i + 1) * ratio) - int(i * ratio) for i in range(72)]
    seen = flat(items)
    turns = [seen[start : start + 7] for start in range(0, len(seen) - 6, 7)]
    assert turns and all(sorted(turn) == list(range(300, 307)) for turn in turns)
    assert len({tuple(turn) for turn in turns}) == len(turns), "each turn has an order of its own"
    assert walk(anchored(ratio), 12) == walk(pairs(), 12)
    assert all("anchor" not in item for item in pairs())


def test_the_holdout_walk_is_not_the_retain_walk():
    both = ForgetRetainDataset(FORGET, token_rows(200, 7), holdout=token_rows(200, 7), anchor_ratio=1)
    assert walk(both, 4, "anchor") != walk(both, 4)
    again = ForgetRetainDataset(FORGET, token_rows(200, 7), holdout=token_rows(200, 7), anchor_ratio=1, seed=1)
    assert walk(again, 4, "anchor") != walk(both, 4, "anchor")


def test_holdout_rows_have_the_numbers_of_their_set():
    for item in anchored(2):
        for row in item["anchor"]:
            assert row["input_ids"] == [1, 2, 300 + row["row"]]


def test_holdout_rows_of_streams():
    """A set beside streams is walked; a stream keeps its order and is read again where it ends."""
    stream = datasets.Dataset.from_list(token_rows(300, 4)).to_iterable_dataset()
    for holdout in (token_rows(300, 4), stream):
        pairing = ForgetRetainStream(FORGET, RETAIN, holdout=holdout, anchor_ratio=1.5)
        items = [[row["input_ids"][-1] for row in item["anchor"]] for item in pairing]
        assert [len(each) for each in items] == [1, 2, 1, 2, 1, 2]
        assert sorted(flat(items)[:4]) == [300, 301, 302, 303] and len(set(flat(items)[4:8])) == 4
    assert flat(items)[:8] == [300, 301, 302, 303] * 2
    without = [item["retain"] for item in ForgetRetainStream(FORGET, RETAIN)]
    assert [item["retain"] for item in pairing] == without


def test_an_empty_holdout_set():
    with pytest.raises(ValueError, match="at least one row in the holdout set"):
        ForgetRetainDataset(FORGET, RETAIN, holdout=[])
