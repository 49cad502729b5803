"""What a suppressor is made of, on disk: JSON, safetensors, and folders of small models. Nothing is pickled."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from ..errors import input_error
from ..model.fingerprints import hash_weights
from ..model.loading import loading
from ..results.files import atomic_write, atomic_write_text, read_json
from ..results.suppression_report import SUPPRESSOR_FILE
from ..training.levels.ngram import NGram

TENSORS = "suppressor.safetensors"
_FORMAT = 1


def save_parts(folder: Path, name: str, parts: Mapping[str, Any]) -> Path:
    """Write the parts of a suppressor; the settings last, so that a folder with them is whole."""
    (folder / SUPPRESSOR_FILE).unlink(missing_ok=True)
    kinds, settings, tensors = {}, {}, {}
    for key, part in parts.items():
        kinds[key] = _kind(part)
        if isinstance(part, PreTrainedModel):
            part.save_pretrained(folder / key)
        elif isinstance(part, Tensor):
            tensors[key] = part.detach().cpu().contiguous()
        elif isinstance(part, NGram):
            settings[key] = part.vocabulary
            for length, (keys, counts) in enumerate(part.counted()):
                tensors |= {f"{key}.{length}.keys": torch.tensor(keys), f"{key}.{length}.counts": torch.tensor(counts)}
        else:
            settings[key] = part
    atomic_write(folder / TENSORS, lambda unfinished: save_file(tensors, str(unfinished)))
    stored = {"format": _FORMAT, "name": name, "kinds": kinds, "settings": settings}
    return atomic_write_text(folder / SUPPRESSOR_FILE, json.dumps(stored, indent=2))


def load_parts(folder: Path) -> tuple[str, dict[str, Any]]:
    """The name of a suppressor, and its parts.

    Raises:
        ValueError: files that are missing, broken, or of another format.
    """
    try:
        stored = read_json(folder / SUPPRESSOR_FILE)
        if stored["format"] != _FORMAT:
            raise ValueError(f"format {stored['format']}, not {_FORMAT}")
        tensors = load_file(folder / TENSORS)
        parts = {key: _loaded(folder, key, kind, stored["settings"], tensors) for key, kind in stored["kinds"].items()}
        return stored["name"], parts
    except (OSError, ValueError, LookupError, TypeError, AttributeError, SafetensorError) as error:
        raise input_error(
            expected=f"{folder.name} to hold a suppressor, as Suppressor.save writes it",
            got=f"files that cannot be read ({type(error).__name__}: {error})",
            why="the model would answer by its weights, which know the rows",
            fix="save it again, or remove the folder to have the model without it",
        ) from None


def hash_part(part: Any) -> str:
    """SHA-256 of a part."""
    if isinstance(part, PreTrainedModel):
        return hash_weights(part)
    digest = hashlib.sha256()
    if isinstance(part, Tensor):
        digest.update(part.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    elif isinstance(part, NGram):
        for counted in part.counted():
            for numbers in counted:
                digest.update(np.ascontiguousarray(numbers).data)
    else:
        digest.update(json.dumps(part, sort_keys=True).encode())
    return digest.hexdigest()


def _kind(part: Any) -> str:
    kinds = {"model": PreTrainedModel, "tensor": Tensor, "ngram": NGram}
    return next((name for name, kind in kinds.items() if isinstance(part, kind)), "json")


def _loaded(folder: Path, key: str, kind: str, settings: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Any:
    if kind == "json":
        return settings[key]
    if kind == "tensor":
        return tensors[key]
    if kind == "ngram":
        orders = sum(name.startswith(f"{key}.") and name.endswith(".keys") for name in tensors)
        names = [(f"{key}.{order}.keys", f"{key}.{order}.counts") for order in range(orders)]
        counted = [(tensors[keys].numpy(), tensors[counts].numpy()) for keys, counts in names]
        return NGram.of_counted(counted, settings[key])
    with loading(folder / key):
        return AutoModelForCausalLM.from_pretrained(folder / key, dtype="auto").requires_grad_(False).eval()
