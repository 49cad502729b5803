"""The folder of a run that has ended: its weights, and its record, plots and card when something new is known."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from peft import PeftModel
from transformers import AutoModelForCausalLM, PreTrainedModel

from ..errors import input_error
from ..model.adapters import load_adapter
from ..model.loading import loading
from ..results.adapter_config import ADAPTER_CONFIG
from ..results.card_file import has_own_card, write_own_card
from ..results.record import RECORD_FILE, RunRecord, load_record
from ..results.report import read_run, write_plots
from ..suppression import SUPPRESSION_FOLDER, has_suppressor, load_suppressor
from .arguments import Parsed


def load_saved(name: str, parsed: Parsed) -> PreTrainedModel | PeftModel:
    """A model, or an adapter with its base, loaded as the run loads its own.

    Args:
        name: folder, or id on the Hub.
        parsed: arguments of the run.
    """
    options = dict(parsed.args.init_kwargs)
    if name != parsed.model.model_name_or_path:
        options["revision"] = None
    return load_answering(name, options)


def load_answering(name: str, init_kwargs: Mapping[str, Any]) -> PreTrainedModel | PeftModel:
    """A model, or an adapter with its base, that answers as what lies in its folder does.

    A folder with a saved suppressor (`suppression/`) gives a model whose answers it suppresses.

    Args:
        name: folder, or id on the Hub.
        init_kwargs: of `from_pretrained`; fp32 where they name no `dtype`.
    """
    options = {"dtype": "float32", **init_kwargs}
    if (Path(name) / ADAPTER_CONFIG).is_file():
        options.pop("revision", None)  # PEFT would take the adapter's for the base's
    with loading(name):
        if (Path(name) / ADAPTER_CONFIG).is_file():
            model = load_adapter(name, **options)
        else:
            model = AutoModelForCausalLM.from_pretrained(name, **options)
    if has_suppressor(Path(name) / SUPPRESSION_FOLDER):
        load_suppressor(Path(name) / SUPPRESSION_FOLDER).install(model)
    return model


def update_record(folder: Path, change: Callable[[RunRecord], None]) -> None:
    """Change the record of the run in a folder, if there is one, and make its plots and card again."""
    if not (folder / RECORD_FILE).is_file():
        return
    record, rendered = load_record(folder), has_own_card(folder)
    change(record)
    record.save(folder)
    write_plots(read_run(folder), folder)
    if rendered:
        write_own_card(folder, record)


def require_weights(folder: Path) -> None:
    """Raise for a folder without a model or an adapter."""
    if not any((folder / name).is_file() for name in (ADAPTER_CONFIG, "config.json")):
        raise input_error(
            expected="a run's folder with a model, as --output_dir or --model",
            got=f"{folder.name}, where there is none",
            why="there is nothing to measure",
            fix="pass the output_dir of the run, or --model with a folder or an id of the Hub",
        )
