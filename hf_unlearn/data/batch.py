"""Where the answer tokens of a batch are: the only place where labels are shifted."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from ..errors import input_error
from .roles import Role
from .token_batches import TokenLimit
from .tokenized_row import IGNORED_LABEL

Batch = dict[str, Any]


def answer_mask(labels: Tensor) -> Tensor:
    """Positions whose next token is an answer token: labels [B, L] -> bool [B, L-1].

    Position t predicts token t+1, so the label of position 0 is never a target. This is the project's one label shift.
    """
    return labels[:, 1:] != IGNORED_LABEL


@dataclass(frozen=True)
class AnswerIndex:
    """Where the T answer tokens of a batch of R rows are, and the sizes that the host needs without asking the device.

    Attributes:
        positions: of the hidden state that predicts each answer token, in the batch laid flat ([B * L]), [T].
        targets: the answer tokens, [T].
        lengths: answer tokens of each row, [R].
        rows: by role, how many rows.
        tokens: by role, how many answer tokens.
        columns: by role, the first column that holds a token of it, and the one after the last.
        row_numbers: the place of each row in its own dataset, R numbers (-1 where it has none).
        host_lengths: `lengths` as Python numbers, for which no device is waited for.
        packed: the rows follow each other in one line, without padding.
        longest: tokens of the longest row.
        shape: of the batch's labels.
    """

    positions: Tensor
    targets: Tensor
    lengths: Tensor
    rows: tuple[int, ...]
    tokens: tuple[int, ...]
    columns: tuple[tuple[int, int], ...]
    row_numbers: tuple[int, ...]
    host_lengths: tuple[int, ...]
    packed: bool
    longest: int
    shape: tuple[int, ...]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "AnswerIndex":
        """The same on another device; accelerate calls it with the rest of a batch."""
        return self._with_tensors(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "AnswerIndex":
        """The same in pinned memory; a DataLoader calls it with the rest of a batch."""
        return self._with_tensors(Tensor.pin_memory)

    def _with_tensors(self, change: Callable[[Tensor], Tensor]) -> "AnswerIndex":
        return replace(
            self, positions=change(self.positions), targets=change(self.targets), lengths=change(self.lengths)
        )

    def row_slice(self, role: Role) -> slice:
        """The rows of a role."""
        stops = list(accumulate(self.rows))
        return slice(stops[role] - self.rows[role], stops[role])

    def token_slice(self, role: Role | None) -> slice:
        """The answer tokens of a role; of every row for None."""
        if role is None:
            return slice(0, len(self.targets))
        stops = list(accumulate(self.tokens))
        return slice(stops[role] - self.tokens[role], stops[role])


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


def read_answer_index(batch: Mapping[str, Any]) -> AnswerIndex:
    """The answer index of a batch, from its labels and, where its rows have any, their roles."""
    labels, role = batch["labels"], batch.get("role")
    if role is not None and bool((role.diff() < 0).any()):
        raise input_error(
            expected=f"the rows of a batch in the order {', '.join(known.name.lower() for known in Role)}",
            got="another order",
            why="the tokens of a role are one slice of the batch",
            fix="use DataCollatorForUnlearning, or sort the rows of your own collator by `role`",
        )
    mask = answer_mask(labels)
    packed = "row_lengths" in batch
    if not packed:
        # On the left of a row's first token there may be padding, which predicts nothing.
        mask = mask & batch["attention_mask"][:, :-1].bool()
    line, column = mask.nonzero(as_tuple=True)
    if packed:
        row_lengths = batch["row_lengths"]
        line = torch.bucketize(column, row_lengths.cumsum(0), right=True)
        lengths = torch.bincount(line, minlength=len(row_lengths))  # a row without answers counts too, as 0
        longest = int(row_lengths.max())
    else:
        lengths = mask.sum(1)
        longest = int(batch["attention_mask"].sum(1).max())
    rows, tokens, columns = _sizes_by_role(batch, lengths)
    return AnswerIndex(
        positions=column if packed else line * labels.shape[1] + column,
        targets=labels[:, 1:][mask],
        lengths=lengths,
        rows=rows,
        tokens=tokens,
        columns=columns,
        row_numbers=tuple(batch["row"].tolist()),
        host_lengths=tuple(lengths.tolist()),
        packed=packed,
        longest=longest,
        shape=tuple(labels.shape),
    )


def _sizes_by_role(
    batch: Mapping[str, Any], lengths: Tensor
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[tuple[int, int], ...]]:
    """Each role's rows, answer tokens and columns; all of them zero where the rows have no roles."""
    role = batch.get("role")
    if role is None:
        return (0,) * len(Role), (0,) * len(Role), ((0, 0),) * len(Role)
    rows = torch.bincount(role, minlength=len(Role))
    tokens = lengths.new_zeros(len(Role)).index_add(0, role, lengths)
    packed = "row_lengths" in batch
    columns = _packed_columns(role, batch["row_lengths"]) if packed else _padded_columns(role, batch["attention_mask"])
    return tuple(rows.tolist()), tuple(tokens.tolist()), columns


def _packed_columns(role: Tensor, row_lengths: Tensor) -> tuple[tuple[int, int], ...]:
    """The stretch of the line that each role's rows take; (0, 0) for a role without rows."""
    widths = row_lengths.new_zeros(len(Role)).index_add(0, role, row_lengths).tolist()
    stops = accumulate(widths)
    return tuple((stop - width, stop) if width else (0, 0) for width, stop in zip(widths, stops, strict=True))


def _padded_columns(role: Tensor, attention_mask: Tensor) -> tuple[tuple[int, int], ...]:
    """First and past-the-last column of each role; (0, 0) for a role without rows."""
    mask = attention_mask.long()
    seen = mask.new_zeros((len(Role), mask.shape[1])).index_add(0, role, mask) > 0
    first, after = seen.int().argmax(1), seen.shape[1] - seen.flip(1).int().argmax(1)
    spans = torch.stack([first, after], dim=1) * seen.any(1, keepdim=True)
    return tuple((start, stop) for start, stop in spans.tolist())


def count_answers(batch: Batch) -> Tensor:
    """Answer tokens and rows of each role in a batch: int64 [roles, 2]; what the losses are divided by."""
    lengths = answer_index(batch).lengths
    tokens_and_rows = torch.stack([lengths, (lengths > 0).to(lengths.dtype)], dim=1)
    counts = lengths.new_zeros((len(Role), 2))
    return counts.index_add(0, batch["role"], tokens_and_rows)


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
    lengths = torch.zeros_like(index.lengths)
    return batch | {"answer_index": replace(empty, lengths=lengths, host_lengths=(0,) * len(index.host_lengths))}


def _selected(index: AnswerIndex, kept: list[Role], length: int, start: int, stop: int) -> AnswerIndex:
    """The answer index of the rows of some roles, at their new places.

    Args:
        index: of the whole batch.
        kept: roles, in ascending order.
        length: columns of the whole batch.
        start, stop: the columns that are kept, of a padded batch.
    """
    positions, rows_so_far, columns_so_far = [], 0, 0
    columns = [(0, 0)] * len(Role)
    for role in kept:
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
        rows=tuple(count if role in kept else 0 for role, count in zip(Role, index.rows, strict=True)),
        tokens=tuple(count if role in kept else 0 for role, count in zip(Role, index.tokens, strict=True)),
        columns=tuple(columns),
        row_numbers=tuple(number for rows in row_slices for number in index.row_numbers[rows]),
        host_lengths=tuple(count for rows in row_slices for count in index.host_lengths[rows]),
        packed=index.packed,
        longest=index.longest,  # at least that of the rows kept, which is all that attention asks
        shape=(1, columns_so_far) if index.packed else (rows_so_far, stop - start),
    )
