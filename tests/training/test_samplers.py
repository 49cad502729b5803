"""Samplers of one's own train the rows that they name. The trainer's own orders are in test_trainer_arguments.py."""

import pytest
import torch
from accelerate.data_loader import prepare_data_loader, skip_first_batches
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    RandomSampler,
    Sampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)
from transformers import TrainerControl, TrainerState

from fixtures.bad_input import sets
from fixtures.batches import batches_of, flat
from hf_unlearn import ForgetRetainDataset, UnlearningTrainer
from hf_unlearn.data.epoch_order import EpochOrder
from hf_unlearn.training.hooks.callbacks import RowEpochs

ONE_EPOCH = dict(max_steps=-1, num_train_epochs=1)


def sampled_by(make) -> type[UnlearningTrainer]:
    """A trainer class whose `_get_train_sampler` is `make`, as a subclass of Trainer sets one."""

    class Sampled(UnlearningTrainer):
        def _get_train_sampler(self, train_dataset=None):
            return make(self.train_dataset if train_dataset is None else train_dataset)

    return Sampled


class Listed(Sampler):
    """Rows as they are listed."""

    def __init__(self, rows: list[int]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self):
        return iter(self.rows)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda rows: WeightedRandomSampler([1.0] + [0.0] * 7, 8), [0] * 8),
        (SequentialSampler, [*range(8)]),
        (lambda rows: Listed([5, 5, 2, 7]), [5, 5, 2, 7]),
        (lambda rows: SubsetRandomSampler([3]), [3]),
    ],
    ids=["weighted", "sequential", "listed", "subset"],
)
def test_a_sampler_trains_the_rows_that_it_names(tmp_path, make, expected):
    seen = batches_of(tmp_path, trainer_class=sampled_by(make), **ONE_EPOCH)
    assert flat(seen.forget) == expected
    assert len(flat(seen.retain)) == len(expected)


def test_a_random_sampler_decides_the_order_and_the_retain_walk_goes_on(tmp_path):
    def random_rows(rows):
        return RandomSampler(rows, generator=torch.Generator().manual_seed(3))

    arguments = dict(trainer_class=sampled_by(random_rows), retain_ratio=1.5, max_steps=-1, num_train_epochs=2)
    seen, own = batches_of(tmp_path, **arguments), batches_of(tmp_path, **arguments | {"trainer_class": None})
    first, second = flat(seen.forget[:2]), flat(seen.forget[2:])
    assert sorted(first) == sorted(second) == list(range(8)) and first != second
    assert first != flat(own.forget[:2])
    # 12 retain rows an epoch, which is all of them: the pairs are those of the epoch, in another order.
    assert sorted(flat(seen.retain[:2])) == sorted(flat(seen.retain[2:])) == list(range(12))


class OwnLoader(UnlearningTrainer):
    """`get_train_dataloader` overridden with a plain DataLoader, which tells nobody of epochs."""

    def get_train_dataloader(self):
        rows = self.train_dataset
        share = DistributedSampler(rows, num_replicas=2, rank=1, shuffle=False)
        return DataLoader(rows, batch_sampler=BatchSampler(share, 4, drop_last=False), collate_fn=self.data_collator)


def test_a_loader_of_ones_own(tmp_path):
    seen = batches_of(tmp_path, trainer_class=OwnLoader, max_steps=-1, num_train_epochs=3)
    assert seen.forget == [[1, 3, 5, 7]] * 3
    assert len({tuple(batch) for batch in seen.retain}) == 3, "each epoch has other retain rows"


@pytest.mark.parametrize("trainer_class", [None, sampled_by(RandomSampler)], ids=["ours", "random"])
def test_a_run_resumed_inside_an_epoch_sees_the_same_rows(tmp_path, trainer_class):
    arguments = dict(
        trainer_class=trainer_class,
        train_dataset=sets(forget=12),
        per_device_train_batch_size=2,
        retain_ratio=0.5,
        max_steps=9,
        save_strategy="steps",
        save_steps=8,
    )
    whole = batches_of(tmp_path, **arguments)
    resumed = batches_of(tmp_path, resume=str(tmp_path / "checkpoint-8"), **arguments)
    # Loaders read one batch ahead.
    assert resumed.forget[:1] == whole.forget[8:9] and resumed.retain[:1] == whole.retain[8:9]
    assert whole.forget[8:9] != whole.forget[2:3]


class Turning(Sampler):
    """An order of its own in each epoch that it is told of."""

    def __init__(self, rows) -> None:
        self.size, self.epoch = len(rows), 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.size

    def __iter__(self):
        return iter(torch.randperm(self.size, generator=torch.Generator().manual_seed(self.epoch)).tolist())


@pytest.mark.parametrize("sampler", [EpochOrder, RandomSampler, Turning, SequentialSampler])
@pytest.mark.parametrize("resumed", [False, True])
def test_ranks_share_an_epoch_and_know_which_it_is(sampler, resumed):
    rows = [{"input_ids": [1, i], "labels": [-100, i]} for i in range(16)]
    control, state = TrainerControl(), TrainerState()

    def epoch_of(rank: int, epoch: int) -> list[tuple[int, int]]:
        """(forget row, retain row) of a rank, the first of its two batches left out where a run is resumed."""
        torch.manual_seed(0)
        dataset = ForgetRetainDataset(rows, rows)
        loader = DataLoader(dataset, batch_size=4, sampler=sampler(dataset), collate_fn=list)
        loader = prepare_data_loader(loader, num_processes=2, process_index=rank, use_seedable_sampler=True)
        state.epoch = epoch + 0.5 * resumed
        RowEpochs(lambda: dataset).on_epoch_begin(None, state, control, train_dataloader=loader)
        loader = skip_first_batches(loader, 1) if resumed else loader
        loader.set_epoch(epoch)
        return [(item["row"], item["retain"][0]["row"]) for batch in loader for item in batch]

    epochs = [epoch_of(0, epoch) + epoch_of(1, epoch) for epoch in range(3)]
    for pairs in epochs:
        kept, met = zip(*pairs, strict=True)
        assert len(set(kept)) == len(set(met)) == (8 if resumed else 16), "no row on both ranks"
    assert len({tuple(pairs) for pairs in epochs}) == 3, "other pairs in each epoch"
    if sampler is not SequentialSampler:
        assert len({tuple(row for row, _ in pairs) for pairs in epochs}) == 3, "and another order"
