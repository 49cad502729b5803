"""The order of an epoch in which rows of like length meet, so that batches hold little padding."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from .lengths import row_lengths
from .pairing import ForgetRetainDataset

# As transformers' LengthGroupedSampler: groups of 50 batches, or a quarter of a small set.
_BATCHES, _GROUPS = 50, 4


def group_size(rows: int, batch: int) -> int:
    """Items that are sorted together.

    Args:
        rows: forget rows.
        batch: items of an optimizer step over all ranks.
    """
    return batch * max(1, min(rows // (batch * _GROUPS), _BATCHES))


class Walk(NamedTuple):
    """The rows of a set that an epoch meets.

    Attributes:
        rows: as the walk gives them, [steps].
        starts: the first step of each item, and the number of steps, [items + 1].
        turns: the permutation that each step belongs to, ascending, [steps].
    """

    rows: np.ndarray
    starts: np.ndarray
    turns: np.ndarray


@dataclass(frozen=True)
class LengthGroups:
    """Sorts groups of items by length, forget rows and the retain and holdout rows that they meet alike.

    The items of an epoch are cut into groups of `size`. In a group the forget rows are sorted by length, and so are
    the retain rows whose turn has come: long ones meet long ones. Groups fall and rise in length by turns, so that a
    batch over the border of two holds like lengths too. Which rows an epoch holds does not change, nor which group a
    row is in: only the places within it. A group also ends where the retain set begins anew, so that no two copies of
    a retain row are sorted side by side.

    Args:
        size: items of a group.
        forget: tokens of each forget row, [forget rows].
        retain: tokens of each retain row, [retain rows]; empty without retain rows.
    """

    size: int
    forget: np.ndarray
    retain: np.ndarray

    def order(
        self, forget: np.ndarray, retain: np.ndarray, starts: np.ndarray, turns: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """An epoch's rows in the order in which they are trained.

        Args:
            forget: forget rows in random order, [items].
            retain: retain rows as the walk gives them, [steps].
            starts: the first step of each item, and the number of steps, [items + 1].
            turns: the walk that each step belongs to, ascending, [steps].

        Returns:
            `forget` and `retain`, each with the rows of every group sorted.
        """
        forget, retain = forget.copy(), retain.copy()
        for sign, start, end in self.groups(starts, turns):
            forget[start:end] = _sorted(forget[start:end], self.forget, sign)
            first, last = starts[start], starts[end]
            if first < last:
                # Steps of the last item that belong to the next walk stay where they are.
                last = first + np.searchsorted(turns[first:last], turns[first], side="right")
                retain[first:last] = _sorted(retain[first:last], self.retain, sign)
        return forget, retain

    def with_holdout(self, holdout: Walk, lengths: np.ndarray, groups: Iterable[tuple[int, int, int]]) -> np.ndarray:
        """The holdout rows of an epoch, those of each group sorted as its forget rows are, [steps].

        Args:
            holdout: their walk. Where it begins anew inside of a group, each of its parts is sorted by itself.
            lengths: tokens of each holdout row.
            groups: of the forget rows.
        """
        rows = holdout.rows.copy()
        for sign, start, end in groups:
            steps = slice(holdout.starts[start], holdout.starts[end])
            rows[steps] = rows[steps][np.lexsort((sign * lengths[rows[steps]], holdout.turns[steps]))]
        return rows

    def groups(self, starts: np.ndarray, turns: np.ndarray) -> Iterator[tuple[int, int, int]]:
        """(sign, first item, the one after the last) of each group: -1 where its lengths fall, 1 where they rise."""
        for number, (start, end) in enumerate(pairwise(self._borders(starts, turns))):
            yield 1 if number % 2 else -1, start, end  # the first falls, so that the longest batch comes first of all

    def _borders(self, starts: np.ndarray, turns: np.ndarray) -> Sequence[int]:
        """Items at which a group begins, and the number of items."""
        items = len(starts) - 1
        new = np.arange(1, items) % self.size == 0
        if len(turns):
            # The walk that an item's first step belongs to; an item without a step of its own has that of the next.
            new |= np.diff(turns[np.minimum(starts[:-1], len(turns) - 1)]) != 0
        return [0, *(np.flatnonzero(new) + 1).tolist(), items]


def _sorted(rows: np.ndarray, lengths: np.ndarray, sign: int) -> np.ndarray:
    return rows[np.argsort(sign * lengths[rows], kind="stable")]


class LengthGroupedDataset(ForgetRetainDataset):
    """A `ForgetRetainDataset` whose order is that of `LengthGroups`: still a function of (seed, epoch, row) alone.

    Args:
        forget: tokenised rows with a length.
        retain: likewise, or None.
        group_size: items that are sorted together; all of them where a sampler orders the rows by length itself.
        lengths: of the forget rows and of the retain rows, to sort by; None to count their tokens.
        options: of `ForgetRetainDataset`.
    """

    def __init__(
        self,
        forget: Any,
        retain: Any = None,
        *,
        group_size: int,
        lengths: tuple[np.ndarray | None, np.ndarray | None] = (None, None),
        **options: Any,
    ) -> None:
        super().__init__(forget, retain, **options)
        counted = [
            _lengths(rows) if given is None else given for rows, given in zip((forget, retain), lengths, strict=True)
        ]
        self._groups = LengthGroups(group_size, *counted)
        self._holdout_lengths = _lengths(self.holdout)
        self._made: tuple[tuple[int, int], tuple[np.ndarray, np.ndarray, np.ndarray]] | None = None

    def order(self) -> np.ndarray:
        """The forget rows in the order in which the current epoch trains them, [rows]."""
        return self._rows_of_epoch()[0]

    @property
    def forget_lengths(self) -> np.ndarray:
        """What the forget rows are sorted by, [rows]."""
        return self._groups.forget

    def _retain_rows(self, places: Sequence[int]) -> list[list[int]]:
        return self._at(places, self._rows_of_epoch()[1], self.retain_steps)

    def _holdout_rows(self, places: Sequence[int]) -> list[list[int]]:
        return self._at(places, self._rows_of_epoch()[2], self.holdout_steps)

    def _at(self, places: Sequence[int], rows: np.ndarray, steps_of: Callable[[int], range]) -> list[list[int]]:
        first = self.epoch * len(self)
        begin, steps = steps_of(first).start, [steps_of(first + place) for place in places]
        return [rows[own.start - begin : own.stop - begin].tolist() for own in steps]

    def _rows_of_epoch(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of the current epoch, made once: forget rows by place, retain and holdout rows by step."""
        key = (self.seed, self.epoch)
        if self._made is None or self._made[0] != key:
            kept = self._walk(self.retain, self.retain_steps, self.retain_at)
            unseen = self._walk(self.holdout, self.holdout_steps, self.holdout_at)
            forget, retain = self._groups.order(super().order(), *kept)
            groups = self._groups.groups(kept.starts, kept.turns)
            self._made = key, (forget, retain, self._groups.with_holdout(unseen, self._holdout_lengths, groups))
        return self._made[1]

    def _walk(self, rows: Any, steps_of: Callable[[int], range], row_at: Callable[[int], int]) -> Walk:
        items = range(self.epoch * len(self), (self.epoch + 1) * len(self) + 1)
        starts = np.array([steps_of(index).start for index in items])
        steps = range(starts[0], starts[-1])
        walked = np.array([row_at(step) for step in steps], dtype=np.int64)
        turns = np.array([step // len(rows) for step in steps], dtype=np.int64)
        return Walk(walked, starts - starts[0], turns)


def _lengths(rows: Any) -> np.ndarray:
    return np.empty(0, dtype=np.int64) if rows is None else row_lengths(rows)
