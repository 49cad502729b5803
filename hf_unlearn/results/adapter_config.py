"""The adapter_config.json of a run, as PEFT writes it and people may have edited it."""

from pathlib import Path
from typing import Any, TypedDict

from ..errors import input_error
from .files import read_json
from .schema import SchemaError, check_schema, wrong_file

ADAPTER_CONFIG = "adapter_config.json"
_WHY = "the adapter would be loaded as another one, or not at all"
_FIX = "undo the change of the file, or save the adapter again"


class _Keys(TypedDict, total=False):
    """Those that this package reads, or that decide what an adapter is; others are PEFT's to check."""

    peft_type: str
    base_model_name_or_path: str | None
    revision: str | None
    task_type: str | None
    r: int
    lora_alpha: float
    lora_dropout: float
    target_modules: list[str] | str | None
    modules_to_save: list[str] | None


def read_adapter_config(folder: str | Path) -> dict[str, Any]:
    """The configuration of the adapter in a folder.

    Raises:
        ValueError: no JSON, JSON of something else, or a key of another type; with the file's name.
    """
    file = Path(folder) / ADAPTER_CONFIG
    try:
        config = read_json(file)
    except (OSError, ValueError) as error:
        raise _no_config(f"what cannot be read ({type(error).__name__})") from None
    if not isinstance(config, dict) or "peft_type" not in config:
        raise _no_config("JSON of another kind, without a peft_type")
    try:
        check_schema(config, _Keys)
    except SchemaError as error:
        raise wrong_file(file.name, error, _WHY, _FIX) from None
    return config


def _no_config(got: str) -> ValueError:
    return input_error(expected=f"{ADAPTER_CONFIG} as PEFT writes it", got=got, why=_WHY, fix=_FIX)
