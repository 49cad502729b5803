"""Rows of a tokenised set as the items of a batch: read together, with their alternates, or under another prompt."""

from collections.abc import Sequence
from typing import Any

import datasets

from .tokenized_row import IGNORED_LABEL, TokenizedRow, answer_ids, prompt_ids


def read_rows(rows: Any, indices: Sequence[int]) -> list[TokenizedRow]:
    """Rows at `indices`, in that order, in one read where the container can (datasets.Dataset)."""
    if not indices:
        return []
    if isinstance(rows, datasets.Dataset):
        columns = rows[list(indices)]
        return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    return [rows[i] for i in indices]


def mismatch_row(forget: TokenizedRow, retain: TokenizedRow, max_length: int | None) -> TokenizedRow:
    """The retain row's answer under the forget row's prompt; the prompt is masked and never trained."""
    prompt, answer = prompt_ids(forget), answer_ids(retain)
    # The retain row's own labels: what it masks inside its answer (a later user turn, say) stays masked.
    labels = [IGNORED_LABEL] * len(prompt) + list(retain["labels"][-len(answer) :])
    return {"input_ids": [*prompt, *answer][:max_length], "labels": labels[:max_length]}


def with_alternate(row: TokenizedRow) -> dict[str, Any]:
    """A tokenised row as a batch reads it: its ids, labels and index, and its alternate as a row of its own."""
    item: dict[str, Any] = {name: row[name] for name in ("input_ids", "labels", "row") if name in row}
    if "alternate_input_ids" in row:
        ids, labels = row["alternate_input_ids"], row["alternate_labels"]
        item["alternate"] = {"input_ids": ids, "labels": labels, "row": row.get("row", -1)}
    return item
