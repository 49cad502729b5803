"""Collators: paired items become one flat batch, forget rows first, with a role per row."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from .roles import Role
from .tokenized_row import IGNORED_LABEL, TokenizedRow

# (role, forget row of the batch that it belongs to, tokenised row)
RoleRow = tuple[Role, int, TokenizedRow]


def in_role_order(items: list[dict[str, Any]]) -> list[RoleRow]:
    """The rows of paired items as a batch holds them: forget rows first, then the other roles in their order.

    Args:
        items: paired; those without `input_ids`, which bring their other rows alone, come last.
    """
    rows = [(Role.FORGET, source, item) for source, item in enumerate(items) if "input_ids" in item]
    rows += [(Role.RETAIN, -1, row) for item in items for row in item.get("retain", ())]
    rows += [(Role.ALTERNATE, i, item["alternate"]) for i, item in enumerate(items) if "alternate" in item]
    rows += [(Role.MISMATCH, i, row) for i, item in enumerate(items) for row in item.get("mismatch", ())]
    retained = [row for item in items for row in item.get("retain", ())]
    rows += [(Role.RETAIN_ALTERNATE, -1, row["alternate"]) for row in retained if "alternate" in row]
    rows += [(Role.HOLDOUT, -1, row) for item in items for row in item.get("anchor", ())]
    return rows


def positions(attention_mask: torch.Tensor) -> torch.Tensor:
    """Position ids of left-padded rows, [B, L]: without them a model with absolute positions counts the padding."""
    return (attention_mask.cumsum(1) - 1).clamp(min=0)


def _with_roles(batch: dict[str, torch.Tensor], rows: list[RoleRow]) -> dict[str, torch.Tensor]:
    batch["role"] = _integers([role for role, _, _ in rows])
    batch["source"] = _integers([source for _, source, _ in rows])
    batch["row"] = _places([row for _, _, row in rows])
    return batch


def _places(rows: list[dict[str, Any]]) -> torch.Tensor:
    return _integers([row.get("row", -1) for row in rows])


def _integers(numbers: list[int]) -> torch.Tensor:
    # Through numpy, which reads a short list in a fraction of the time.
    return torch.from_numpy(np.array(numbers, dtype=np.int64))


@dataclass(frozen=True)
class DataCollatorForUnlearning:
    """Pads the rows of several paired items into one batch.

    The attention mask comes from the rows' lengths, never from token ids, so a real end-of-turn token stays visible
    and trained when it doubles as the padding token.

    Args:
        pad_token_id: id that fills `input_ids`; its positions are masked and have no influence.
        pad_to_multiple_of: round the length up, for tensor cores.
        padding_side: "right", or "left" with explicit position ids.
        padding_free: the rows follow each other in one line [1, S] without any padding; attention must keep them
            apart by their position ids.

    Returns (call): a dict of tensors, B rows in ascending order of role, L the padded length:
        `input_ids`, `attention_mask`, `labels` [B, L]; `role` [B]; `source` [B], the forget row of the batch to which
        a row belongs (-1 for retain rows, their alternates and holdout rows); `row` [B], the row's index in its own
        dataset (-1 where it has none);
        `position_ids` [B, L] on the left side. Without padding `input_ids`, `labels` and `position_ids` are [1, S],
        there is no mask, and `row_lengths` [B] are the tokens of each row.
    """

    pad_token_id: int
    pad_to_multiple_of: int | None = None
    padding_side: Literal["right", "left"] = "right"
    padding_free: bool = False

    def __call__(self, items: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        rows = in_role_order(items)
        return _with_roles(self._together([row for _, _, row in rows]), rows)

    def collate_rows(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """A batch of rows to be scored, in their order: the same tensors without `role` and `source`."""
        return self._together(rows) | {"row": _places(rows)}

    def _together(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        return self._join(rows) if self.padding_free else self._pad(rows)

    def _join(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        ids = [torch.as_tensor(row["input_ids"]) for row in rows]
        labels = torch.cat([torch.as_tensor(row["labels"]) for row in rows])
        lengths = torch.tensor([len(row_ids) for row_ids in ids])
        # Nothing predicts a row's first token: what stands before it is another row.
        labels[lengths.cumsum(0) - lengths] = IGNORED_LABEL
        return {
            "input_ids": torch.cat(ids)[None],
            "labels": labels[None],
            "position_ids": torch.cat([torch.arange(len(row_ids)) for row_ids in ids])[None],
            "row_lengths": lengths,
        }

    def _pad(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        length = max(len(row["input_ids"]) for row in rows)
        if self.pad_to_multiple_of:
            length += -length % self.pad_to_multiple_of
        # In numpy, where a row that is written costs a fraction of what it does as a tensor.
        shape = (len(rows), length)
        input_ids, labels = np.full(shape, self.pad_token_id), np.full(shape, IGNORED_LABEL)
        mask = np.zeros(shape, dtype=np.int64)
        for i, row in enumerate(rows):
            size = len(row["input_ids"])
            place = slice(0, size) if self.padding_side == "right" else slice(length - size, length)
            input_ids[i, place], labels[i, place], mask[i, place] = row["input_ids"], row["labels"], 1
        arrays = {"input_ids": input_ids, "attention_mask": mask, "labels": labels}
        batch = {name: torch.from_numpy(values) for name, values in arrays.items()}
        if self.padding_side == "left":
            batch["position_ids"] = positions(batch["attention_mask"])
        return batch


@dataclass(frozen=True)
class RowCollator:
    """A collator of plain rows, the kind that a Trainer script already has, with the roles added.

    Args:
        collate_rows: pads a list of rows (`input_ids`, `attention_mask`, `labels`) into a batch, in their order.
        makes_labels: whether it makes the labels itself, and is given rows without any.
    """

    collate_rows: Callable[[list[dict[str, Any]]], Mapping[str, torch.Tensor]]
    makes_labels: bool = False

    def __call__(self, items: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        rows = in_role_order(items)
        features = [
            {
                "input_ids": list(row["input_ids"]),
                "attention_mask": [1] * len(row["input_ids"]),
                **({} if self.makes_labels else {"labels": list(row["labels"])}),
            }
            for _, _, row in rows
        ]
        batch = dict(self.collate_rows(features))
        if "position_ids" not in batch and "attention_mask" in batch and not bool(batch["attention_mask"][:, 0].all()):
            batch["position_ids"] = positions(batch["attention_mask"])
        return _with_roles(batch, rows)
