"""Whether a disk has room for the hidden states of rows before they are computed."""

import shutil
from pathlib import Path
from typing import Any

import datasets
import numpy as np

from ...data.tokenized_row import IGNORED_LABEL, target_count
from ...errors import input_error


def hidden_bytes(tokens: int, hidden: int, itemsize: int) -> int:
    """Bytes of hidden states: answer tokens x hidden size x bytes of a number."""
    return tokens * hidden * itemsize


def require_room(folder: Path, model: Any, rows: Any) -> None:
    """Raise where the hidden states of rows take more than is free.

    Args:
        folder: that they are to lie in; it need not exist.
        model: unwrapped.
        rows: tokenised.

    Raises:
        ValueError: the disk has no room.
    """
    head = model.get_output_embeddings()
    width = model.config.get_text_config().hidden_size
    itemsize = next(head.parameters()).element_size()
    needed = hidden_bytes(_answers(rows), width, itemsize)
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise input_error(
            expected=f"room for {needed / 2**20:,.0f} MiB of the reference's hidden states in {folder}, for "
            "reference='cached'",
            got=f"{free / 2**20:,.0f} MiB free",
            why="every step reads them from there",
            fix="make room, name another reference_cache_dir, or use reference='adapter', 'copy' or 'topk'",
        )


def _answers(rows: Any) -> int:
    """Answer tokens of a tokenised set; the first token of a row is none."""
    if not isinstance(rows, datasets.Dataset):
        return sum(target_count(row["labels"][1:]) for row in rows)
    batches = rows.select_columns(["labels"]).with_format("numpy").iter(1000)
    return sum(int((np.concatenate(list(batch["labels"])) != IGNORED_LABEL).sum()) for batch in batches)
