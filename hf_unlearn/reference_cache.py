"""Reference log-probs, precomputed and kept on disk under a key of all that they depend on."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import torch
import transformers
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from huggingface_hub import constants
from peft import PeftModel
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn
from transformers import PreTrainedTokenizerBase
from transformers.utils import logging

from .data.prepare import TrainSets
from .data.roles import Role
from .measurement import RowLogps, RowScorer
from .reference import Reference
from .reference_plan import ReferenceMode

logger = logging.get_logger(__name__)

# Part of every key: a change of what is stored, or of how it is computed, must never read an old file.
_FORMAT = "1"


def default_cache_dir() -> Path:
    """Where reference log-probs are kept unless the user says otherwise: inside the Hugging Face cache."""
    return Path(constants.HF_HOME) / "hf_unlearn" / "reference"


def hash_weights(model: nn.Module) -> str:
    """SHA-256 of every parameter and buffer of the state dict: name, type, shape and bytes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(memoryview(flat.view(torch.uint8).numpy()))
    return digest.hexdigest()


def hash_rows(rows: Any) -> str:
    """SHA-256 of the token ids and labels of every row, in order."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps([list(row["input_ids"]), list(row["labels"])]).encode())
    return digest.hexdigest()


def _hash_tokenizer(tokenizer: PreTrainedTokenizerBase | None) -> str:
    if tokenizer is None:
        return "none"
    content = {"vocabulary": tokenizer.get_vocab(), "special": tokenizer.special_tokens_map}
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def _adapter_configs(model: Any) -> dict[str, dict[str, Any]]:
    """What the active adapters' weights are scaled with (lora_alpha, use_rslora, ...), which changes the numbers."""
    if not isinstance(model, PeftModel):
        return {}
    configs = {name: model.peft_config[name].to_dict() for name in model.active_adapters}
    # A set's order changes from process to process, and the key with it.
    return {
        name: {k: sorted(v) if isinstance(v, set) else v for k, v in config.items()}
        for name, config in configs.items()
    }


def reference_key(model: Any, rows: Any, tokenizer: PreTrainedTokenizerBase | None, precision: str) -> str:
    """The key of a set's reference log-probs: data, weights, tokenizer, model configuration and precision."""
    # Equal weights under another configuration (rope scaling, attention) give other numbers.
    config = {k: v for k, v in model.config.to_dict().items() if k not in ("_name_or_path", "use_cache")}
    parts = {
        "format": _FORMAT,
        "transformers": transformers.__version__,
        "weights": hash_weights(model),
        "rows": hash_rows(rows),
        "tokenizer": _hash_tokenizer(tokenizer),
        "config": config,
        "adapters": _adapter_configs(model),
        "attention": model.config._attn_implementation,
        "precision": precision,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


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
        path = folder / f"{reference_key(model, rows, tokenizer, _precision(accelerator, model))}.safetensors"
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


def _precision(accelerator: Accelerator, model: Any) -> str:
    return f"{accelerator.mixed_precision} {model.dtype} {accelerator.device.type}"
