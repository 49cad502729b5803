"""Reference log-probs, precomputed and kept on disk under a key of all that they depend on."""

import os
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from huggingface_hub import constants
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn
from transformers import PreTrainedTokenizerBase
from transformers.utils import logging

from .data.prepare import TrainSets
from .data.roles import Role
from .fingerprints import describe_model, hash_parts, hash_rows, hash_tokenizer
from .measurement import RowLogps, RowScorer
from .reference import Reference
from .reference_plan import ReferenceMode

logger = logging.get_logger(__name__)

# Part of every key: a change of what is stored, or of how it is computed, must never read an old file.
_FORMAT = "1"


def default_cache_dir() -> Path:
    """Where reference log-probs are kept unless the user says otherwise: inside the Hugging Face cache."""
    return Path(constants.HF_HOME) / "hf_unlearn" / "reference"


def reference_key(model: Any, rows: Any, tokenizer: PreTrainedTokenizerBase | None, accelerator: Accelerator) -> str:
    """The key of a set's reference log-probs: data, weights, tokenizer, model configuration and precision."""
    content = {"format": _FORMAT, "rows": hash_rows(rows), "tokenizer": hash_tokenizer(tokenizer)}
    return hash_parts(content | describe_model(model, accelerator))


def cached_logps(
    scorer: RowScorer,
    model: Any,
    rows: Any,
    tokenizer: PreTrainedTokenizerBase | None,
    cache_dir: str | Path | None,
    description: str,
) -> RowLogps:
    """Log-probs of `rows` under `model`, from the cache where the key agrees, else computed by all ranks and kept.

    Rank 0 alone hashes, reads and writes; the others get what it found.
    """
    accelerator: Accelerator = scorer.accelerator
    folder = Path(cache_dir) if cache_dir is not None else default_cache_dir()
    found: list[RowLogps | None] = [None]
    path: Path | None = None
    if accelerator.is_main_process:
        path = folder / f"{reference_key(model, rows, tokenizer, accelerator)}.safetensors"
        found = [read_logps(path, len(rows))]
    if accelerator.num_processes > 1:
        broadcast_object_list(found)
    if found[0] is not None:
        return found[0]
    computed = scorer(model, rows, description)
    if path is not None:
        write_logps(path, computed)
    return computed


def precompute(
    reference: Reference,
    model: nn.Module,
    sets: TrainSets,
    scorer: RowScorer,
    tokenizer: PreTrainedTokenizerBase | None,
    cache_dir: str | Path | None,
) -> None:
    """Give the reference the log-probs of every row that its losses look up, if that is the plan."""
    if reference.plan.logps is not ReferenceMode.PRECOMPUTED:
        return
    for role in sorted(reference.needs.reference_logps):
        description = f"reference log-probs of {role.name.lower()} rows"
        source = reference.source(model)
        logps = cached_logps(scorer, source, _rows_of(role, sets), tokenizer, cache_dir, description)
        reference.store(role, logps, scorer.accelerator.device)
    reference.release()


def _rows_of(role: Role, sets: TrainSets) -> Any:
    """The rows of a role as a set of its own: alternates come out of the forget set."""
    if role is Role.FORGET:
        return sets.forget
    if role is Role.RETAIN:
        return sets.retain
    assert role is Role.ALTERNATE, f"no loss reads reference log-probs of {role.name.lower()} rows"
    kept = sets.forget.select_columns(["alternate_input_ids", "alternate_labels"])
    return kept.rename_columns({"alternate_input_ids": "input_ids", "alternate_labels": "labels"})


def read_logps(path: Path, rows: int) -> RowLogps | None:
    """The log-probs stored at `path`, or None where there is no whole file of so many rows."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as stored:
            logps = RowLogps(stored.get_tensor("logps"), stored.get_tensor("lengths"))
    except (SafetensorError, OSError) as error:
        logger.warning(f"The reference cache {path} cannot be read ({error}); its log-probs are computed again.")
        return None
    if len(logps.lengths) != rows or int(logps.lengths.sum()) != len(logps.logps):
        logger.warning(f"The reference cache {path} does not hold {rows} rows; its log-probs are computed again.")
        return None
    return logps


def write_logps(path: Path, logps: RowLogps) -> None:
    """Store log-probs so that a reader sees a whole file or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    save_file({"logps": logps.logps.contiguous(), "lengths": logps.lengths}, unfinished)
    unfinished.replace(path)
