"""The disk cache of what is computed of the reference before training: log-probs, likeliest tokens, hidden states."""

import os
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from huggingface_hub import constants
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn
from transformers import PreTrainedTokenizerBase
from transformers.utils import logging

from ...data.digests import set_digest
from ...data.prepare import TrainSets
from ...data.roles import Role
from ...data.row_cache import RowCache
from ...model.fingerprints import hash_parts, hash_tokenizer, model_identity
from ...model.output_head import output_head
from ...model.score_rows import RowHiddenStates, RowLogps, RowScorer, RowTopK, gather_list
from ...model.sharding import is_sharded
from .disk_room import require_room
from .plan import ReferenceMode
from .reference import Reference

logger = logging.get_logger(__name__)

# Part of every key: a change of what is stored, or of how it is computed, must never read an old file.
_FORMAT = "2"


def default_cache_dir() -> Path:
    """Where they are kept unless the user says otherwise: inside the Hugging Face cache."""
    return Path(constants.HF_HOME) / "hf_unlearn" / "reference"


def reference_key(
    model: Any, rows: Any, tokenizer: PreTrainedTokenizerBase | None, accelerator: Accelerator, kind: str = "logps"
) -> str:
    """The key of what is kept of a set: data, weights, tokenizer, model configuration, precision, and what it is."""
    content = {"format": _FORMAT, "rows": set_digest(rows), "tokenizer": hash_tokenizer(tokenizer)}
    content |= {} if kind == "logps" else {"kind": kind}
    return hash_parts(content | model_identity(model, accelerator))


Stored = TypeVar("Stored", RowLogps, RowTopK, RowHiddenStates)


@dataclass(frozen=True)
class ReferenceCache:
    """What is kept on disk of sets of rows under a model.

    Args:
        scorer: computes what is not there.
        tokenizer: that made the rows.
        folder: None for `default_cache_dir()`.
        private: of the run. The likeliest tokens of rows that a model knows are the rows themselves, and hidden states
            tell them: they stay in it, unless the user names a folder.
    """

    scorer: RowScorer
    tokenizer: PreTrainedTokenizerBase | None
    folder: str | Path | None
    private: RowCache | None = None

    def logps(self, model: Any, rows: Any, description: str) -> RowLogps:
        """Log-probs of the answer tokens of `rows`."""
        return self._cached(
            RowLogps, len(rows), self._key(model, rows, "logps"), lambda: self.scorer(model, rows, description)
        )

    def top_k(self, model: Any, rows: Any, k: int, description: str) -> RowTopK:
        """The k likeliest tokens at every answer token of `rows`."""
        key = self._key(model, rows, f"top {k}")
        return self._cached(RowTopK, len(rows), key, lambda: self.scorer.top_k(model, rows, k, description))

    def hidden_states(self, model: Any, rows: Any, description: str) -> RowHiddenStates:
        """What the output head reads at every answer token of `rows`, mapped from the file: memory holds what is read.

        Raises:
            ValueError: the disk has no room for them, or the model's logits are more than its head's.
        """
        accelerator: Accelerator = self.scorer.accelerator
        key = self._key(model, rows, "hidden states")
        place: list[Path | None] = [None]
        if accelerator.is_main_process:
            place = [self._folder_of(RowHiddenStates) / f"{key}.safetensors"]
        if accelerator.num_processes > 1:
            broadcast_object_list(place)
        (path,) = place
        assert path is not None
        stored = read_stored(RowHiddenStates, path, len(rows))
        # A machine that does not see the file must not wait for the others alone.
        if all(gather_list([stored is not None], accelerator)) and stored is not None:
            return stored
        if accelerator.is_main_process:
            require_room(path.parent, accelerator.unwrap_model(model), rows)
        computed = self.scorer.hidden_states(model, rows, description)
        if accelerator.is_main_process:
            write_stored(path, computed)
        accelerator.wait_for_everyone()
        return read_stored(RowHiddenStates, path, len(rows)) or computed

    def counted(self, source: str, counted: Any, rows: Any, compute: Callable[[], RowLogps]) -> RowLogps:
        """Log-probs of the answer tokens of `rows` under what was counted on other rows; one process computes them.

        Args:
            source: what is counted, with all that its numbers depend on beside the two sets.
            counted: tokenised rows.
            rows: tokenised rows.
            compute: what is not there.
        """
        tokenizer = hash_tokenizer(self.tokenizer)
        content = {"format": _FORMAT, "source": source, "tokenizer": tokenizer}
        content |= {"counted": set_digest(counted), "rows": set_digest(rows)}
        main = self.scorer.accelerator.is_main_process
        return self._cached(RowLogps, len(rows), hash_parts(content) if main else None, compute, alone=True)

    def _key(self, model: Any, rows: Any, name: str) -> str | None:
        """The key of a model's file, on the processes that have a part in it: all hash one that is split over them."""
        accelerator: Accelerator = self.scorer.accelerator
        wanted = accelerator.is_main_process or is_sharded(model)
        return reference_key(model, rows, self.tokenizer, accelerator, name) if wanted else None

    def _folder_of(self, kind: type[RowLogps] | type[RowTopK] | type[RowHiddenStates]) -> Path:
        if self.folder is not None:
            return Path(self.folder)
        return default_cache_dir() if kind is RowLogps or self.private is None else self.private.folder / "reference"

    def _cached(
        self, kind: type[Stored], rows: int, key: str | None, compute: Callable[[], Stored], *, alone: bool = False
    ) -> Stored:
        """From the cache where the key agrees, else computed by all ranks (or by rank 0 `alone`) and kept.

        Rank 0 alone reads and writes; the others get what it found.
        """
        accelerator: Accelerator = self.scorer.accelerator
        stored: list[Stored | None] = [None]  # in a list, as it is broadcast
        path: Path | None = None
        if accelerator.is_main_process:
            path = self._folder_of(kind) / f"{key}.safetensors"
            stored = [read_stored(kind, path, rows)]
        shared: list[Stored | None] = list(stored)
        if alone and path is not None and stored[0] is None:
            shared[0] = compute()
        if accelerator.num_processes > 1:
            broadcast_object_list(shared)
        result = shared[0] if shared[0] is not None else compute()
        if path is not None and stored[0] is None:
            write_stored(path, result)
        return result


def precompute(reference: Reference, model: nn.Module, sets: TrainSets, cache: ReferenceCache, k: int) -> None:
    """Give the reference what its losses look up of every row, if that is the plan."""
    source, device = reference.source(model), cache.scorer.accelerator.device
    if reference.plan.logps is ReferenceMode.PRECOMPUTED:
        for role in sorted(reference.needs.reference_logps):
            description = f"reference log-probs of {role.name.lower()} rows"
            reference.store(role, cache.logps(source, _rows_of(role, sets), description), device)
    if reference.plan.live is ReferenceMode.TOP_K:
        for role in sorted(reference.needs.reference_logits):
            description = f"the reference's likeliest tokens at {role.name.lower()} rows"
            stored = cache.top_k(source, _rows_of(role, sets), k, description)
            logger.info(f"{description}: {k} tokens leave {stored.tail_mass():.2%} of the mass to others.")
            reference.store_top_k(role, stored)
    if reference.plan.live is ReferenceMode.HIDDEN_STATES:
        for role in sorted(reference.needs.reference_logits):
            description = f"the reference's hidden states at {role.name.lower()} rows"
            rows = _rows_of(role, sets)
            states = cache.hidden_states(source, rows, description)
            # What was read from the disk has needed no forward, which would have shown what follows the head.
            head = output_head(cache.scorer.accelerator.unwrap_model(source))
            head.examine(source, {"input_ids": torch.tensor([rows[0]["input_ids"]], device=device)})
            reference.store_hidden(role, states, head.transform)
    reference.release()


def _rows_of(role: Role, sets: TrainSets) -> Any:
    """The rows of a role as a set of its own."""
    if role is Role.FORGET:
        return sets.forget
    if role is Role.RETAIN:
        return sets.retain
    if role is Role.HOLDOUT:
        return sets.anchors
    assert role is Role.ALTERNATE, f"no loss reads the reference of {role.name.lower()} rows"
    return sets.alternates


def read_stored(kind: type[Stored], path: Path, rows: int) -> Stored | None:
    """What is stored at `path`, or None where there is no whole file of so many rows."""
    try:
        if not path.is_file():
            return None
        with safe_open(path, framework="pt") as file:
            stored = kind(**{field.name: file.get_tensor(field.name) for field in fields(kind)})
    except (SafetensorError, OSError) as error:
        logger.warning(f"The reference cache {path} cannot be read ({error}); it is computed again.")
        return None
    if len(stored.lengths) != rows or int(stored.lengths.sum()) != len(getattr(stored, fields(kind)[0].name)):
        logger.warning(f"The reference cache {path} does not hold {rows} rows; it is computed again.")
        return None
    return stored


def write_stored(path: Path, stored: RowLogps | RowTopK | RowHiddenStates) -> None:
    """Store so that a reader sees a whole file or none, and only its owner reads it.

    A cache that is full or cannot be written to is no reason to stop: the run has in memory what it needs.
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            unfinished.touch(mode=0o600)
            save_file({field.name: getattr(stored, field.name).contiguous() for field in fields(stored)}, unfinished)
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)
    except (SafetensorError, OSError) as error:
        logger.warning(f"The reference cache {path} cannot be written ({error}); the run goes on without it.")
