"""Which rows are in a batch: the lists of places that the batch sampler hands to the data loader, in their order."""

from collections import deque
from collections.abc import Callable, Collection, Iterator
from typing import Any

from accelerate.data_loader import DataLoaderAdapter, DataLoaderDispatcher
from torch.utils.data import BatchSampler, DataLoader, IterableDataset
from transformers import TrainerState, TrainingArguments

from ..data.pairing import ForgetRetainDataset
from ..errors import input_error

PlacesByRole = dict[str, list[int]]


class WatchedBatches(BatchSampler):
    """A batch sampler that remembers what it has handed out in the present epoch, and may leave places empty.

    A data loader runs ahead of training, in its workers and by a batch in accelerate's loader; what is trained is
    taken from the front, batch by batch. All other attributes are those of the sampler inside, which accelerate
    looks for.

    Args:
        batches: of this rank.
        by_role: what a batch holds beside its own rows.
        leave_out: rows whose places stay empty.
    """

    def __init__(
        self, batches: Any, by_role: Callable[[list[int]], PlacesByRole], leave_out: Collection[int] = ()
    ) -> None:
        self._batches, self._by_role, self._leave_out = batches, by_role, frozenset(leave_out)
        self._handed_out: deque[PlacesByRole] = deque()
        self._readers = 0

    def __iter__(self) -> Iterator[list[int]]:
        self._handed_out.clear()
        self._readers += 1
        for batch in self._batches:
            places = [int(place) for place in batch]
            self._handed_out.append(self._by_role(places))
            yield [place for place in places if place not in self._leave_out]

    def __len__(self) -> int:
        return len(self._batches)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_batches":
            raise AttributeError(name)
        return getattr(self._batches, name)

    def begin_epoch(self) -> None:
        """What has been handed out belongs to the former epoch."""
        self._handed_out.clear()
        self._readers = 0

    def take(self) -> PlacesByRole:
        """The rows of the next batch that is trained, those that were left out included."""
        if self._readers > 1 or not self._handed_out:
            raise input_error(
                expected="a train data loader that only the training reads",
                got="one that something else read from too, a callback perhaps",
                why="the log would name rows that were not in the batch",
                fix="read from a data loader of your own: trainer.get_train_dataloader() makes one",
            )
        return self._handed_out.popleft()


class MayBeEmpty:
    """A collator that makes an empty batch of no rows."""

    def __init__(self, collate: Callable[[list[Any]], Any]) -> None:
        self.collate = collate

    def __call__(self, rows: list[Any]) -> Any:
        return self.collate(rows) if rows else {}


class TrainedRows:
    """The rows of each optimizer step, told from the events of a callback.

    Args:
        loader: of the training, as `on_train_begin` gives it; its batch sampler is watched from now on.
        args: of the training.
        state: of the training; a resumed one passes over the batches before its step.
        leave_out: rows whose places stay empty.
    """

    def __init__(
        self, loader: Any, args: TrainingArguments, state: TrainerState, leave_out: Collection[int] = ()
    ) -> None:
        inner = loader.base_dataloader if isinstance(loader, DataLoaderAdapter) else loader
        self._batches = WatchedBatches(inner.batch_sampler, roles_of(inner.dataset), leave_out)
        # torch refuses the assignment, since a loader that is being read could not follow; this one is not yet.
        vars(inner)["batch_sampler"] = self._batches
        if leave_out:
            inner.collate_fn = MayBeEmpty(inner.collate_fn)
        steps_in_epoch = max(1, -(-len(loader) // args.gradient_accumulation_steps))
        self._skipped = state.global_step % steps_in_epoch * args.gradient_accumulation_steps
        self._step: list[PlacesByRole] = []

    def begin_epoch(self) -> None:
        """Before the loader is read."""
        self._batches.begin_epoch()

    def micro_batch(self) -> None:
        """A micro-batch was trained."""
        for _ in range(self._skipped):
            self._batches.take()
        self._skipped = 0
        self._step.append(self._batches.take())

    def step(self) -> dict[str, list[list[int]]]:
        """The last micro-batch of a step was trained: its rows by role and micro-batch."""
        self.micro_batch()
        rows = {role: [batch[role] for batch in self._step] for role in self._step[0]}
        self._step = []
        return rows


def roles_of(dataset: Any) -> Callable[[list[int]], PlacesByRole]:
    """How the rows of a batch are told from its places: its own, and what UnlearningTrainer pairs with them."""
    if not isinstance(dataset, ForgetRetainDataset):
        return lambda batch: {"train": batch}

    def paired(batch: list[int]) -> PlacesByRole:
        places = [dataset.place(row) for row in batch]
        rows: PlacesByRole = {"forget": batch}
        if dataset.retain is not None:
            rows["retain"] = [row for at in places for row in (*dataset.retain_rows(at), *dataset.draw(at))]
        if dataset.holdout is not None:
            rows["holdout"] = [row for at in places for row in dataset.holdout_rows(at)]
        return rows

    return paired


def require_known_batches(loader: Any, args: TrainingArguments, state: TrainerState) -> None:
    """Raise unless it can be told which row of the set is in which batch.

    Raises:
        ValueError: a stream, rows joined by packing, batches made by the main process for all, batch sizes that are
            tried out, data that is not skipped on resuming, or a hyperparameter search.
    """
    reason = None
    if (
        not isinstance(loader, DataLoader)
        or isinstance(loader.dataset, IterableDataset)
        or loader.batch_sampler is None
    ):
        reason = "an IterableDataset, whose rows have no places", "pass a set with a length"
    elif getattr(args, "packing", False):
        reason = "packing=True, which joins rows before they are batched", "train with padding_free=True instead"
    elif isinstance(loader, DataLoaderDispatcher):
        reason = "dispatch_batches=True, by which one rank reads for all", "leave it out of accelerator_config"
    elif args.auto_find_batch_size:
        reason = "auto_find_batch_size=True, which begins anew with other batches", "set per_device_train_batch_size"
    elif args.ignore_data_skip:
        reason = "ignore_data_skip=True, which trains other rows after a resume", "leave it out"
    elif state.is_hyper_param_search:
        reason = "a hyperparameter search, which is many trainings", "log the training with the arguments it chose"
    if reason is not None:
        raise input_error(
            expected="a training whose batches are rows of a set, by their places",
            got=reason[0],
            why="a row could not be traced to the steps that it was trained in",
            fix=reason[1],
        )
