"""Rows of token ids as arrays: those that come tokenised, checked all at once, and the columns that rows become."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

from ..errors import input_error
from .checks import FULL_LENGTH, KEPT_TARGETS, TARGETS
from .token_arrays import TOKEN_TYPE, flat_lists
from .tokenized_row import IGNORED_LABEL, EncodedRow

# Rows by column: lists with an entry a row, or a table.
RowColumns: TypeAlias = Mapping[str, Sequence[Any]] | pa.Table

_MOST_IDS = 2**31  # of a vocabulary that nobody names: what a column can hold


@dataclass(frozen=True)
class FlatRows:
    """R rows with T tokens in all, one after another.

    Attributes:
        ids: token ids, [T].
        labels: the id where a token is trained, else -100, [T].
        offsets: where the tokens of each row begin, and T, [R + 1].
        answer_starts: place of the first answer token in each row, [R].
    """

    ids: np.ndarray
    labels: np.ndarray
    offsets: np.ndarray
    answer_starts: np.ndarray

    @classmethod
    def of(cls, rows: Sequence[EncodedRow]) -> "FlatRows":
        """Encoded rows."""
        ids, labels = ([np.asarray(row[column], TOKEN_TYPE) for row in rows] for column in (0, 1))
        starts = np.asarray([row.answer_start for row in rows], TOKEN_TYPE)
        return cls(np.concatenate(ids), np.concatenate(labels), _offsets([len(row) for row in ids]), starts)

    def rows(self) -> list[EncodedRow]:
        """The rows one by one."""
        bounds = zip(self.offsets[:-1].tolist(), self.offsets[1:].tolist(), self.answer_starts.tolist(), strict=True)
        return [EncodedRow(self.ids[a:b].tolist(), self.labels[a:b].tolist(), start) for a, b, start in bounds]

    def columns(self, max_length: int | None, prefix: str = "") -> dict[str, pa.Array]:
        """The rows' columns, with a prefix to their names: `input_ids` and `labels`, cut to `max_length`, and counts.

        `full_length` and `targets` are those before the cut, `kept_targets` those after it. The first position of a
        row is never predicted, so it is no target. Without a prefix there is `answer_start` too, which nobody asks of
        alternates; a row that is cut before its answer has no target left, and is refused later.
        """
        lengths = np.diff(self.offsets)
        place = np.arange(len(self.ids)) - np.repeat(self.offsets[:-1], lengths)
        target = (self.labels != IGNORED_LABEL) & (place > 0)
        kept = place < (len(place) if max_length is None else max_length)
        offsets = pa.array(_offsets(_count(kept, self.offsets)), pa.int32())
        columns = {
            "input_ids": pa.ListArray.from_arrays(offsets, _tokens(self.ids[kept])),
            "labels": pa.ListArray.from_arrays(offsets, _tokens(self.labels[kept])),
            FULL_LENGTH: _tokens(lengths),
            TARGETS: _tokens(_count(target, self.offsets)),
            KEPT_TARGETS: _tokens(_count(target & kept, self.offsets)),
        } | ({} if prefix else {"answer_start": _tokens(self.answer_starts)})
        return {f"{prefix}{name}": values for name, values in columns.items()}


def given_rows(batch: RowColumns, prefix: str, vocabulary_size: int | None, places: Sequence[str]) -> FlatRows:
    """The checked ids and labels of rows that come tokenised, without their padding.

    Args:
        batch: the rows, by column.
        prefix: "alternate_" for the rows' alternates, else "".
        vocabulary_size: bound on the ids; None where no tokenizer says it.
        places: what each row is called in the error message.

    Raises:
        ValueError: a row that is not one list of integers each, or has unlike lengths, ids outside the vocabulary,
            labels that are neither -100 nor the id at their place, or an attention mask with a hole.
    """
    names = (f"{prefix}input_ids", f"{prefix}labels", f"{prefix}attention_mask")
    given = _from_arrow(batch, names) if isinstance(batch, pa.Table) else None
    (ids, labels, mask), offsets = given or _from_lists(batch, names, places)
    # Labels are authoritative: a mask made as `ids != pad` hides a real end-of-turn token, and its label says so.
    real = (mask != 0) | (labels != IGNORED_LABEL)
    lengths = _count(real, offsets)
    first, last = _first_and_last(real, offsets)
    wrong = (ids < 0) | (ids >= (vocabulary_size or _MOST_IDS)) | ((labels != IGNORED_LABEL) & (labels != ids))
    faulty = (_count(wrong, offsets) > 0) | ((lengths > 0) & (last - first + 1 > lengths))
    if faulty.any():
        row = int(faulty.argmax())
        arrays = [values[offsets[row] : offsets[row + 1]] for values in (ids, labels, mask)]
        raise _refused(arrays, names, vocabulary_size, places[row])
    if not real.all():
        ids, labels, offsets = ids[real], labels[real], _offsets(lengths)
    answer_starts, _ = _first_and_last(labels != IGNORED_LABEL, offsets)
    return FlatRows(ids, labels, offsets, np.minimum(answer_starts, offsets[1:]) - offsets[:-1])


def _from_arrow(table: pa.Table, names: Sequence[str]) -> tuple[list[np.ndarray], np.ndarray] | None:
    """The numbers of columns of lists, [T] each, and where each row's begin, as they lie in Arrow's memory.

    None where they do not lie side by side: lists are missing, empty, of unlike lengths or of something else.
    """
    columns = [table[name].combine_chunks() for name in names if name in table.column_names]
    if len(columns) < 2 or not all(_has_integers(column) for column in columns):
        return None
    flat = [flat_lists(column) for column in columns]
    offsets = flat[0][1]
    if (np.diff(offsets) == 0).any() or not all(np.array_equal(offsets, others) for _, others in flat):
        return None
    values = [numbers for numbers, _ in flat]
    return values + [np.ones(len(values[0]), np.int8)] * (3 - len(values)), offsets


def _has_integers(column: pa.Array) -> bool:
    lists = pa.types.is_list(column.type) or pa.types.is_large_list(column.type)
    return (
        lists and pa.types.is_integer(column.type.value_type) and not (column.null_count or column.values.null_count)
    )


def _from_lists(batch: RowColumns, names: Sequence[str], places: Sequence[str]) -> tuple[list[np.ndarray], np.ndarray]:
    """The same of columns of Python lists, each looked at by itself."""
    columns = batch.to_pydict() if isinstance(batch, pa.Table) else batch
    nothing = [None] * len(places)
    rows = []
    for place, *values in zip(places, *(columns.get(name, nothing) for name in names), strict=True):
        if values[2] is None and isinstance(values[0], list):
            values[2] = [1] * len(values[0])
        arrays = [_array(value) for value in values]
        if not _alike(arrays):
            raise _refused(arrays, names, None, place)
        rows.append(arrays)
    return [np.concatenate(column) for column in zip(*rows, strict=True)], _offsets([len(ids) for ids, *_ in rows])


def _array(value: Any) -> np.ndarray:
    try:
        return np.asarray(value) if isinstance(value, list) else np.empty((0, 0))
    except ValueError:  # lists of lists of unlike lengths
        return np.empty((0, 0))


def _alike(arrays: Sequence[np.ndarray]) -> bool:
    return all(a.ndim == 1 and a.dtype.kind in "iu" for a in arrays) and len({len(a) for a in arrays}) == 1


def _refused(
    arrays: Sequence[np.ndarray], names: Sequence[str], vocabulary_size: int | None, place: str
) -> ValueError:
    """The error (not raised) of one row with the first thing that is wrong with it."""
    ids, labels, mask = arrays
    if any(array.ndim != 1 or array.dtype.kind not in "iu" for array in arrays):
        problem = f"{' or '.join(names)} missing, empty or not a flat list of integers"
    elif not _alike(arrays):
        problem = f"{len(ids)} ids, {len(labels)} labels and {len(mask)} mask entries"
    elif ids.min() < 0 or ids.max() >= (vocabulary_size or _MOST_IDS):
        problem = f"ids from {ids.min()} to {ids.max()} for a vocabulary of {vocabulary_size or 'unknown'} tokens"
    elif ((labels != IGNORED_LABEL) & (labels != ids)).any():
        problem = "labels that are neither -100 nor the id at the same place (shifted ones, perhaps)"
    else:
        problem = "an attention mask with zeros between its ones"
    return input_error(
        expected=f"`{names[0]}` and `{names[1]}` of one length, with labels -100 on the prompt and the ids elsewhere",
        got=f"{place}, with {problem}",
        why="labels are shifted once, inside the loss, and every position counts as part of the text",
        fix="correct the rows, or pass them as text and let them be tokenised here",
    )


def _offsets(lengths: Sequence[int] | np.ndarray) -> np.ndarray:
    """Where rows of such lengths begin, one after another, and where the last one ends, [R + 1]."""
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


def _count(flags: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """How many tokens of each row are flagged, [R]."""
    so_far = _offsets(flags)
    return so_far[offsets[1:]] - so_far[offsets[:-1]]


def _first_and_last(flags: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first flagged place from the start of each row on, and the last one before its end, [R] each.

    In a row without a flag they lie outside of it.
    """
    places = np.concatenate([[-1], np.flatnonzero(flags), [len(flags)]])
    return places[np.searchsorted(places, offsets[:-1])], places[np.searchsorted(places, offsets[1:]) - 1]


def _tokens(values: np.ndarray) -> pa.Array:
    return pa.array(values.astype(TOKEN_TYPE, copy=False))
