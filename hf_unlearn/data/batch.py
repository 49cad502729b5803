"""Batches that carry where their answer tokens are, what is counted of them, and parts of them."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..errors import input_error
from .answer_positions import AnswerIndex, read_answer_index
from .roles import Role
from .token_batches import TokenLimit

Batch = dict[str, Any]


@dataclass(frozen=True)
class IndexingCollator:
    """A collator whose batches carry their index, read on the host where it costs nothing.

    Args:
        collate: makes batches with a role per row.
        limit: by which batches of paired items are cut into `parts`; None leaves them whole.
    """

    collate: Callable[[Any], Mapping[str, Any]]
    limit: TokenLimit | None = None

    def __call__(self, items: Any) -> Batch:
        batch = dict(self.collate(items))
        missing = missing_keys(batch)
        if missing:
            raise missing_roles(f"a batch without {', '.join(missing)}")
        parts = [] if self.limit is None or "retain" not in items[0] else self.limit.cut(items)
        if len(parts) > 1:
            batch["parts"] = [indexed(self.collate(part)) for part in parts]
        return indexed(batch)


def parts_of(batch: Batch) -> list[Batch]:
    """The batches into which a micro-batch was cut, each with its own forward; itself where it was not cut."""
    return batch.get("parts", [batch])


def indexed(batch: Mapping[str, Any]) -> Batch:
    """A batch with its answer index, which is read here, on the host, and goes with it to the device."""
    return dict(batch) | {"answer_index": read_answer_index(batch)}


def missing_keys(batch: Mapping[str, Any]) -> list[str]:
    """What a batch lacks of what is read from it."""
    mask = "position_ids" if "row_lengths" in batch else "attention_mask"
    return [key for key in ("input_ids", mask, "labels", "role", "source", "row") if key not in batch]


def missing_roles(got: str) -> ValueError:
    """The error of a collator whose batches do not say what their rows are there for."""
    return input_error(
        expected="a data_collator whose batches have input_ids, attention_mask, labels, role, source and row",
        got=got,
        why="without a role per row nothing tells what to forget from what to keep",
        fix="leave data_collator out, or change what hf_unlearn.DataCollatorForUnlearning returns inside your own",
    )


def answer_index(batch: Batch) -> AnswerIndex:
    """The answer index that came with a batch, else one read from its labels, for which a GPU is waited for.

    One that came before rows or columns were added or taken away is not trusted. Labels changed in place are not seen:
    whoever does that takes `answer_index` out of the batch.

    Raises:
        ValueError: a batch without roles, or with rows not in the order of roles.
    """
    carried: AnswerIndex | None = batch.get("answer_index")
    if carried is not None and carried.shape == tuple(batch["labels"].shape):
        return carried.to(batch["labels"].device)
    missing = missing_keys(batch)
    if missing:
        raise missing_roles(f"a batch without {', '.join(missing)}")
    return read_answer_index(batch)


def count_answers(batch: Batch) -> Tensor:
    """Answer tokens and rows of each role in a batch: int64 [roles, 2]; what the losses are divided by."""
    return answer_index(batch).counts


def select_roles(batch: Batch, roles: Collection[Role]) -> Batch:
    """The rows of some roles, cut to the columns that they use. Nothing is asked of the device."""
    index = answer_index(batch)
    present = [role for role in Role if index.rows[role]]
    kept = [role for role in present if role in roles]
    if kept == present:
        return batch
    row_slices = [index.row_slice(role) for role in kept]
    part = {key: value for key, value in batch.items() if isinstance(value, Tensor)}
    start = min((index.columns[role][0] for role in kept), default=0)
    stop = max((index.columns[role][1] for role in kept), default=0)
    for key, value in part.items():
        if index.packed and value.ndim == 2:
            # One line holds all rows, so a role is a stretch of columns; other tensors have an entry a row.
            part[key] = torch.cat([value[:, slice(*index.columns[role])] for role in kept], dim=1)
        else:
            value = torch.cat([value[rows] for rows in row_slices]) if kept else value[:0]
            part[key] = value[:, start:stop] if value.ndim == 2 else value
    return part | {"answer_index": _selected(index, kept, batch["labels"].shape[1], start, stop)}


def without_answers(batch: Batch) -> Batch:
    """The same rows, of which no answer token is read."""
    index, nothing = answer_index(batch), (0,) * len(Role)
    empty = replace(index, positions=index.positions[:0], targets=index.targets[:0], tokens=nothing)
    lengths, counts = torch.zeros_like(index.lengths), torch.zeros_like(index.counts)
    empty = replace(empty, lengths=lengths, counts=counts, host_lengths=(0,) * len(index.host_lengths))
    return batch | {"answer_index": empty}


def _selected(index: AnswerIndex, kept: list[Role], length: int, start: int, stop: int) -> AnswerIndex:
    """The answer index of the rows of some roles, at their new places.

    Args:
        index: of the whole batch.
        kept: roles, in ascending order.
        length: columns of the whole batch.
        start, stop: the columns that are kept, of a padded batch.
    """
    positions, rows_so_far, columns_so_far = [], 0, 0
    columns, counts = [(0, 0)] * len(Role), torch.zeros_like(index.counts)
    for role in kept:
        counts[role] = index.counts[role]
        first, last = index.columns[role]
        before = index.positions[index.token_slice(role)]
        if index.packed:
            # The role's stretch of the line moves up to the end of the stretch before it.
            positions.append(before - first + columns_so_far)
            columns[role] = (columns_so_far, columns_so_far + last - first)
            columns_so_far += last - first
        else:
            # A position is row * columns + column: the rows move up, and the columns from `start` on are kept.
            row = before // length - index.row_slice(role).start + rows_so_far
            positions.append(row * (stop - start) + before % length - start)
            columns[role] = (first - start, last - start)
            rows_so_far += index.rows[role]
    token_slices, row_slices = [index.token_slice(role) for role in kept], [index.row_slice(role) for role in kept]
    return AnswerIndex(
        positions=torch.cat(positions) if kept else index.positions[:0],
        targets=torch.cat([index.targets[tokens] for tokens in token_slices]) if kept else index.targets[:0],
        lengths=torch.cat([index.lengths[rows] for rows in row_slices]) if kept else index.lengths[:0],
        counts=counts,
        rows=tuple(count if role in kept else 0 for role, count in zip(Role, index.rows, strict=True)),
        tokens=tuple(count if role in kept else 0 for role, count in zip(Role, index.tokens, strict=True)),
        columns=tuple(columns),
        row_numbers=tuple(number for rows in row_slices for number in index.row_numbers[rows]),
        host_lengths=tuple(count for rows in row_slices for count in index.host_lengths[rows]),
        packed=index.packed,
        longest=index.longest,  # at least that of the rows kept, which is all that attention asks
        shape=(1, columns_so_far) if index.packed else (rows_so_far, stop - start),
    )
