"""Which retain and holdout rows meet which forget row, in every epoch and on every rank, and in which order."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import datasets
import numpy as np
import torch
from torch.utils.data import Dataset, IterableDataset

from ..errors import input_error
from .row_items import RowReaders, mismatch_row, read_rows, with_alternate
from .tokenized_row import TokenizedRow
from .walks import check_ratio, permutation, walk_steps

# Independent random streams of one seed: numpy's SeedSequence mixes (seed, stream, ...) without collisions.
_FORGET_ORDER, _RETAIN_ORDER, _MISMATCH_DRAW, _HOLDOUT_ORDER = range(4)
# Permutations kept at hand: a small retain set takes several turns of its walk in one epoch.
_KEPT_ORDERS = 32


class _Pairing:
    """What both kinds of pairing are made of; which rows meet is theirs to say."""

    def __init__(
        self,
        forget: Any,
        retain: Any = None,
        *,
        holdout: Any = None,
        retain_ratio: float = 1.0,
        anchor_ratio: float = 0.25,
        pair_retain: bool = True,
        mismatches: int = 0,
        seed: int = 0,
        shuffle: bool = True,
        max_length: int | None = None,
    ) -> None:
        self.forget, self.retain, self.holdout = forget, retain, holdout
        self._read = RowReaders()  # of the sets as they are: the user may put others in their place
        self.retain_ratio, self.mismatches = check_ratio("retain_ratio", retain_ratio), mismatches
        self.anchor_ratio = check_ratio("anchor_ratio", anchor_ratio)
        self.pair_retain = pair_retain and retain is not None
        self.seed, self.shuffle, self.max_length = seed, shuffle, max_length
        for set_name, rows in (("forget", forget), ("retain", retain), ("holdout", holdout)):
            if rows is not None and not is_stream(rows):
                _require_rows(rows, set_name)
        _require_mismatch_source(retain, mismatches)
        # In shared memory, so that persistent data-loader workers see `set_epoch` too.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()
        self._orders: dict[tuple[int, int], np.ndarray] = {}
        self._placed: tuple[tuple[int, int], np.ndarray] | None = None

    @property
    def epoch(self) -> int:
        """The current epoch."""
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Move to another epoch: new forget order, walks carried on, new mismatch draws."""
        self._epoch.fill_(epoch)

    def reseed(self, seed: int) -> None:
        """Take another seed, as another run or a trial of a hyperparameter search does."""
        self.seed = seed
        self._orders.clear()

    def draw(self, place: int) -> list[int]:
        """Retain rows whose answers go under the forget prompt at a place: a fresh draw without replacement."""
        if not self.mismatches:
            return []
        generator = np.random.default_rng((self.seed, _MISMATCH_DRAW, self.epoch, place))
        return generator.choice(len(self.retain), self.mismatches, replace=False).tolist()

    def retain_steps(self, index: int) -> range:
        """Steps of the retain walk that belong to the index-th forget row since the walk began."""
        return walk_steps(index, self.retain_ratio) if self.pair_retain else range(0)

    def holdout_steps(self, index: int) -> range:
        """The same of the holdout walk."""
        return range(0) if self.holdout is None else walk_steps(index, self.anchor_ratio)

    def item(
        self,
        row: int,
        forget: TokenizedRow,
        retain: list[TokenizedRow],
        drawn: list[TokenizedRow],
        unseen: list[TokenizedRow],
    ) -> dict[str, Any]:
        """One item: a forget row (with its alternate), and with it its retain rows, drawn answers and holdout rows."""
        item = with_alternate({**forget, "row": row})
        item["retain"] = [with_alternate(kept) for kept in retain]
        item["mismatch"] = [mismatch_row(forget, other, self.max_length) for other in drawn]
        if self.holdout is not None:
            item["anchor"] = [with_alternate(anchor) for anchor in unseen]
        return item


class ForgetRetainDataset(_Pairing, Dataset):
    """Forget rows, each with the retain and holdout rows that it meets in the current epoch.

    Item `i` is forget row `i`: which rows are trained, and in which order, is the sampler's to say. The retain rows of
    an item change with the epoch. `order()` is a fresh permutation of the forget rows for every epoch, the order of
    `EpochOrder`. The retain rows are a walk through permutations of the whole retain set, none repeated before all
    were used, carried on from epoch to epoch; a forget row meets those at its place in `order()`, and likewise the
    holdout rows of a walk of their own. All of it is a function of (seed, epoch, row) alone. Hence the ranks, which
    take different items, see different rows; a resumed run sees what the uninterrupted one would have; and a step
    holds the same rows whether it is split over batch, accumulation or ranks. A sampler of another order trains the
    same pairs; one that names a row twice in an epoch trains the same pair twice.

    Args:
        forget: tokenised rows (`input_ids`, `labels`, and for alternates `alternate_input_ids`, `alternate_labels`).
        retain: tokenised rows, or None to train on forget rows alone.
        holdout: tokenised rows that an anchor loss reads, or None.
        retain_ratio: retain rows per forget row; a fraction spreads them evenly (0.5: every other row has one).
        anchor_ratio: likewise, holdout rows.
        pair_retain: False when the retain set only lends answers to mismatches.
        mismatches: retain answers to place under each forget prompt, drawn afresh for every item.
        seed: of the order and the draws.
        shuffle: False leaves `order()` that of the forget set (the retain walk is shuffled all the same).
        max_length: cut for mismatch rows, the only rows that are composed here.

    Raises:
        ValueError: an empty set, a bad ratio, or mismatches without a retain set that has as many rows.
    """

    def __len__(self) -> int:
        return len(self.forget)

    def __getitem__(self, row: int) -> dict[str, Any]:
        return self.__getitems__([row])[0]

    def __getitems__(self, rows: list[int]) -> list[dict[str, Any]]:
        """Several items in one read of each set; torch's DataLoader calls this when it is there."""
        places = self._places_of(rows)
        forget = self._read(self.forget, rows)
        retain_rows = self._retain_rows(places)
        drawn_rows = [self.draw(place) for place in places]
        flat = [number for numbers in (*retain_rows, *drawn_rows) for number in numbers]
        read = iter(self._read(self.retain, flat))
        retain = [[{**next(read), "row": number} for number in numbers] for numbers in retain_rows]
        drawn = [[next(read) for _ in numbers] for numbers in drawn_rows]
        unseen_rows = self._holdout_rows(places)
        anchors = iter(self._read(self.holdout, [number for numbers in unseen_rows for number in numbers]))
        unseen = [[{**next(anchors), "row": number} for number in numbers] for numbers in unseen_rows]
        return [self.item(*parts) for parts in zip(rows, forget, retain, drawn, unseen, strict=True)]

    def order(self) -> np.ndarray:
        """The forget rows in the order in which the current epoch trains them, [rows]."""
        return self._order(_FORGET_ORDER, self.epoch, len(self)) if self.shuffle else np.arange(len(self))

    def place(self, row: int) -> int:
        """The place of a forget row in the order of the current epoch."""
        return self._places_of([row])[0]

    def _places_of(self, rows: Sequence[int]) -> list[int]:
        """The places of some forget rows."""
        size = len(self)
        for row in rows:
            if not 0 <= row < size:
                raise IndexError(row)
        return self._places()[rows].tolist()

    def _places(self) -> np.ndarray:
        """The place of every forget row in the order of the current epoch, made once an epoch, [rows]."""
        key = (self.seed, self.epoch)
        if self._placed is None or self._placed[0] != key:
            self._placed = key, np.argsort(self.order())
        return self._placed[1]

    def retain_rows(self, place: int) -> list[int]:
        """Indices of the retain rows at a place in the order of the current epoch."""
        return self._retain_rows([place])[0]

    def _retain_rows(self, places: Sequence[int]) -> list[list[int]]:
        """Those of several places."""
        if not self.pair_retain:
            return [[] for _ in places]
        begin, size = self.epoch * len(self), len(self.retain)
        steps = [self.retain_steps(begin + place) for place in places]
        return [[self._row_at(_RETAIN_ORDER, step, size) for step in own] for own in steps]

    def retain_at(self, step: int) -> int:
        """The retain row of a step of the walk, counted from the first epoch."""
        return self._row_at(_RETAIN_ORDER, step, len(self.retain))

    def holdout_rows(self, place: int) -> list[int]:
        """Indices of the holdout rows at a place in the order of the current epoch."""
        return self._holdout_rows([place])[0]

    def _holdout_rows(self, places: Sequence[int]) -> list[list[int]]:
        """Those of several places."""
        if self.holdout is None:
            return [[] for _ in places]
        begin, size = self.epoch * len(self), len(self.holdout)
        steps = [self.holdout_steps(begin + place) for place in places]
        return [[self._row_at(_HOLDOUT_ORDER, step, size) for step in own] for own in steps]

    def holdout_at(self, step: int) -> int:
        """The holdout row of a step of its walk, counted from the first epoch."""
        return self._row_at(_HOLDOUT_ORDER, step, len(self.holdout))

    def _row_at(self, stream: int, step: int, size: int) -> int:
        """The row of a step of a walk through a set of `size` rows."""
        walk, place = divmod(step, size)
        return int(self._order(stream, walk, size)[place])

    def _order(self, stream: int, turn: int, size: int) -> np.ndarray:
        key = (stream, turn)
        if key not in self._orders:
            if len(self._orders) >= _KEPT_ORDERS:
                self._orders.clear()
            self._orders[key] = permutation(size, self.seed, stream, turn)
        return self._orders[key]


class ForgetRetainStream(_Pairing, IterableDataset):
    """The same pairing where one of the sets is a stream, or several are.

    A stream keeps its own order (shuffle it with `.shuffle(buffer_size=...)`); a set with a length is walked through
    permutations as in `ForgetRetainDataset`, from the start in every epoch. A retain or holdout stream that ends
    before the forget rows do is read again. Every rank reads the whole stream and takes its share, so that the order
    is the same for a given seed.
    """

    def set_epoch(self, epoch: int) -> None:
        """Move to another epoch, here and in the streams that can (datasets.IterableDataset reshuffles by it)."""
        super().set_epoch(epoch)
        for rows in (self.forget, self.retain, self.holdout):
            if isinstance(rows, datasets.IterableDataset):
                rows.set_epoch(epoch)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        retain, holdout = self._walk("retain", _RETAIN_ORDER), self._walk("holdout", _HOLDOUT_ORDER)
        for position, (index, row) in enumerate(self._forget_rows()):
            kept = [next(retain) for _ in self.retain_steps(position)]
            unseen = [next(holdout) for _ in self.holdout_steps(position)]
            yield self.item(index, row, kept, read_rows(self.retain, self.draw(position)), unseen)

    def _forget_rows(self) -> Iterator[tuple[int, TokenizedRow]]:
        if is_stream(self.forget):
            yield from ((-1, row) for row in self.forget)
            return
        size = len(self.forget)
        order = permutation(size, self.seed, _FORGET_ORDER, self.epoch) if self.shuffle else range(size)
        for index in order:
            yield int(index), self.forget[int(index)]

    def _walk(self, set_name: str, stream: int) -> Iterator[TokenizedRow]:
        rows, walk = getattr(self, set_name), 0
        while True:
            if is_stream(rows):
                yield from _non_empty(rows, set_name)
            else:
                for index in permutation(len(rows), self.seed, stream, self.epoch, walk):
                    yield {**rows[int(index)], "row": int(index)}
            walk += 1


def is_stream(rows: Any) -> bool:
    """Whether a set is read in order only, without a length."""
    return isinstance(rows, IterableDataset | datasets.IterableDataset)


def _non_empty(rows: Iterable[TokenizedRow], set_name: str) -> Iterator[TokenizedRow]:
    empty = True
    for row in rows:
        empty = False
        yield row
    if empty:
        _require_rows((), set_name)


def _require_rows(rows: Any, set_name: str) -> None:
    if len(rows) == 0:
        raise input_error(
            expected=f"at least one row in the {set_name} set",
            got="an empty set",
            why="there is nothing to pair",
            fix=f"pass rows for {set_name!r}, and check any filter applied to them",
        )


def _require_mismatch_source(retain: Any | None, mismatches: int) -> None:
    if mismatches and is_stream(retain):
        raise input_error(
            expected="a retain set with a length, for a loss that draws random retain answers",
            got="a stream",
            why="a random draw needs every row within reach",
            fix="pass the retain set as a datasets.Dataset, or leave random_mismatch out",
        )
    available = 0 if retain is None or is_stream(retain) else len(retain)
    if mismatches > available:
        raise input_error(
            expected=f"a retain set of at least {mismatches} rows, as many as answers are drawn per forget row",
            got=f"{available} retain rows",
            why="the answers of one forget row are drawn without replacement",
            fix="pass a larger retain set or a smaller k",
        )
