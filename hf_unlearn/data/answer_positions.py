"""Where the answer tokens of a batch are: the only place where labels are shifted."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import input_error
from .roles import Role
from .tokenized_row import IGNORED_LABEL


def answer_mask(labels: np.ndarray) -> np.ndarray:
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
        counts: by role, answer tokens and rows that have any, [roles, 2].
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
    counts: Tensor
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
        if self.positions.device == device:
            return self
        return self._with_tensors(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "AnswerIndex":
        """The same in pinned memory; a DataLoader calls it with the rest of a batch."""
        return self._with_tensors(Tensor.pin_memory)

    def _with_tensors(self, change: Callable[[Tensor], Tensor]) -> "AnswerIndex":
        tensors = map(change, (self.positions, self.targets, self.lengths, self.counts))
        positions, targets, lengths, counts = tensors
        return replace(self, positions=positions, targets=targets, lengths=lengths, counts=counts)

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


def read_answer_index(batch: Mapping[str, Any]) -> AnswerIndex:
    """The answer index of a batch, from its labels and, where its rows have any, their roles."""
    # In numpy: so few numbers cost less to compute than a call of torch does.
    device, labels = batch["labels"].device, _host(batch["labels"])
    answers = np.zeros(labels.shape, dtype=bool)  # by the position that predicts the token
    answers[:, :-1] = answer_mask(labels)
    packed = "row_lengths" in batch
    if packed:
        row_lengths = _host(batch["row_lengths"])
        positions = answers[0].nonzero()[0]
        line = np.searchsorted(row_lengths.cumsum(), positions, side="right")
        lengths = np.bincount(line, minlength=len(row_lengths))  # a row without answers counts too, as 0
        longest = int(row_lengths.max())
    else:
        mask = _host(batch["attention_mask"])
        # On the left of a row's first token there may be padding, which predicts nothing.
        answers &= mask != 0
        positions, lengths = answers.ravel().nonzero()[0], answers.sum(1)
        longest = int(mask.sum(1).max())
    host_lengths = lengths.tolist()
    rows, tokens, columns, answered = _sizes_by_role(batch, host_lengths)
    return AnswerIndex(
        positions=torch.from_numpy(positions).to(device),
        targets=torch.from_numpy(labels.ravel()[positions + 1]).to(device),
        lengths=torch.from_numpy(lengths).to(device),
        counts=torch.from_numpy(np.array((tokens, answered)).T.copy()).to(device),
        rows=rows,
        tokens=tokens,
        columns=columns,
        row_numbers=tuple(batch["row"].tolist()),
        host_lengths=tuple(host_lengths),
        packed=packed,
        longest=longest,
        shape=tuple(labels.shape),
    )


def _host(tensor: Tensor) -> np.ndarray:
    return tensor.cpu().numpy()


def _sizes_by_role(
    batch: Mapping[str, Any], lengths: list[int]
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[tuple[int, int], ...], tuple[int, ...]]:
    """Each role's rows, answer tokens, columns, and rows with an answer; all zero where the rows have no roles."""
    role = batch.get("role")
    rows, tokens, answered = ([0] * len(Role) for _ in range(3))
    columns = [(0, 0)] * len(Role)
    if role is None:
        return tuple(rows), tuple(tokens), tuple(columns), tuple(answered)
    roles = role.tolist()
    if roles != sorted(roles):
        raise input_error(
            expected=f"the rows of a batch in the order {', '.join(known.name.lower() for known in Role)}",
            got="another order",
            why="the tokens of a role are one slice of the batch",
            fix="use DataCollatorForUnlearning, or sort the rows of your own collator by `role`",
        )
    for number, length in zip(roles, lengths, strict=True):
        rows[number] += 1
        tokens[number] += length
        answered[number] += length > 0
    packed = "row_lengths" in batch
    borders = np.append(0, _host(batch["row_lengths"]).cumsum()) if packed else _host(batch["attention_mask"]) != 0
    start = 0
    for number, count in enumerate(rows):
        if count:
            columns[number] = _columns(borders, start, start + count, packed=packed)
        start += count
    return tuple(rows), tuple(tokens), tuple(columns), tuple(answered)


def _columns(borders: np.ndarray, start: int, stop: int, *, packed: bool) -> tuple[int, int]:
    """The first column that some rows take, and the one after the last.

    Args:
        borders: where each row of one line begins, [R + 1]; else which columns each row takes, [R, L].
        start, stop: of the rows.
        packed: the rows follow each other in one line.
    """
    if packed:
        return int(borders[start]), int(borders[stop])
    taken: np.ndarray = np.any(borders[start:stop], axis=0)
    first = int(taken.argmax())
    return (first, len(taken) - int(taken[::-1].argmax())) if taken[first] else (0, 0)
