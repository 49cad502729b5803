"""Merges a run's adapter into its base model, as a folder that can be pushed."""

import shutil
from dataclasses import replace
from pathlib import Path

import torch

from ...errors import input_error
from ...model.adapters import load_adapter
from ...model.loading import load_tokenizer, loading
from ...model.merging import merge
from ...model.weight_files import weight_file_hashes
from ..adapter_config import ADAPTER_CONFIG, read_adapter_config
from ..card_file import write_own_card
from ..record import PLOTS, load_record


def merge_adapter(folder: str | Path, output: str | Path, *, dtype: str = "float32") -> Path:
    """Merge a run's adapter into its base model: a folder with whole weights, tokenizer, record, card and plots.

    Merged in fp32, and saved in it by default: in 16 bits most of what an adapter adds is lost to rounding. The merged
    logits are compared with those of base and adapter before anything is written.

    Args:
        folder: output_dir of a run.
        output: folder to write to.
        dtype: of the merged weights.

    Raises:
        ValueError: the folder holds no adapter, or one that cannot be merged; the merged model gives other logits; or
            there is no such dtype.
    """
    require_dtype(dtype)
    folder, output = Path(folder), Path(output)
    record = load_record(folder)
    require_adapter(folder)
    with loading(folder):
        adapted = load_adapter(folder, dtype="float32")
    # In fp32 and compared before anything is written; then rounded, once.
    merge(adapted).to(getattr(torch, dtype)).save_pretrained(output)
    load_tokenizer(str(folder)).save_pretrained(output)
    if (folder / PLOTS).is_dir():
        shutil.copytree(folder / PLOTS, output / PLOTS, dirs_exist_ok=True)
    record.model.merged = True
    if record.lineage is not None:
        record.lineage = replace(record.lineage, weights_out=weight_file_hashes(output))
    write_own_card(output, record)
    return output


def require_dtype(dtype: str) -> None:
    """Raise for what is no dtype of torch."""
    if not isinstance(getattr(torch, dtype, None), torch.dtype):
        raise input_error(
            expected="a dtype of torch for the merged weights",
            got=repr(dtype),
            why="the weights are saved in it",
            fix="use float32, bfloat16 or float16",
        )


def require_adapter(folder: str | Path) -> None:
    """Raise for a folder without an adapter, or with one whose base model has no name to load it by."""
    file = Path(folder) / ADAPTER_CONFIG
    if not file.is_file():
        raise input_error(
            expected="a folder with an adapter",
            got=f"{Path(folder).name}, without {ADAPTER_CONFIG}",
            why="there is nothing to merge",
            fix="leave --merge out: the whole model is pushed as it is",
        )
    if not read_adapter_config(folder).get("base_model_name_or_path"):
        raise input_error(
            expected="an adapter that names its base model",
            got=f"{file.name} without base_model_name_or_path: the model was made in memory",
            why="the adapter is merged into the weights that it was trained on",
            fix="merge it where the model is: hf_unlearn.model.merging.merge(trainer.model).save_pretrained(folder)",
        )
