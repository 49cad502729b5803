"""The models of the page, loaded once: an adapter and the model before it are one set of weights, switched."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import PreTrainedTokenizerBase
from transformers.utils import is_bitsandbytes_available

from ..data.prepare import RowOptions
from ..errors import input_error, value_error
from ..model.adapters import resized_vocabulary
from ..model.loading import load_tokenizer
from ..model.suppressed_forward import suppression_identity, unsuppressed
from ..tasks.saved_run import load_answering
from ..training.config import UnlearningConfig
from ..training.model_setup import move_unless_quantized
from .sources import RunFolder, Source

_QUANTIZATION = "quantization_config"


@dataclass(frozen=True)
class Column:
    """A model of the page.

    Attributes:
        name: of it.
        model: on its device; two columns may share one.
        options: how prompts become tokens, as the rows of its run did.
        adapter_off: whether the model answers without its adapter, and without what suppresses its answers.
        note: what it is, in a few words below its name.
    """

    name: str
    model: Any
    options: RowOptions
    adapter_off: bool = False
    note: str = ""

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Of the model."""
        assert self.options.tokenizer is not None
        return self.options.tokenizer

    @contextlib.contextmanager
    def active(self) -> Iterator[Any]:
        """Inside, the shared weights answer as this column's model does."""
        if not self.adapter_off:
            yield self.model
            return
        with self.model.disable_adapter(), unsuppressed(self.model):
            yield self.model


def choose_device(name: str) -> torch.device:
    """The device of a name; "auto" is an accelerator where there is one.

    Raises:
        ValueError: no device of this machine.
    """
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if name == "auto":
        return accelerator or torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise value_error("--device", "auto, cpu, or a device such as cuda:0", name) from None
    count = 0 if accelerator is None or accelerator.type != device.type else torch.accelerator.device_count()
    if device.type != "cpu" and (device.index or 0) >= count:
        raise value_error("--device", "a device of this machine, auto or cpu", name, f"devices here: {_here()}")
    return device


def load_columns(sources: Sequence[Source], device: torch.device, dtype: str | None = None) -> list[Column]:
    """The models of the page on a device, each set of weights once.

    Args:
        sources: of the models, in the order of their columns.
        device: where they answer.
        dtype: of the weights, unquantised; None for what the run loads.

    Raises:
        ValueError: files that are no model, a quantised one that cannot be loaded here, or a model that is neither
            here nor within reach.
    """
    loaded: dict[str, Any] = {}

    def model_of(place: str, run: RunFolder) -> Any:
        if place not in loaded:
            loaded[place] = move_unless_quantized(_load(place, _init_kwargs(place, run, dtype)), device)
        return loaded[place]

    columns = []
    for source in sources:
        own = str(source.run.folder)
        shared = source.adapter_off and _switches(model := model_of(own, source.run))
        model = model if shared else model_of(source.place, source.run)
        columns.append(Column(source.name, model, _row_options(source), shared, _note(source, model, shared)))
    return columns


def _load(place: str, options: dict[str, Any]) -> Any:
    try:
        return load_answering(place, options)
    except OSError as error:
        if Path(place).exists():  # files of it are missing, which are named
            raise
        raise input_error(
            expected=f"{place}, a model of the page, on this machine or on the Hub",
            got=str(error).splitlines()[0].rstrip("."),
            why="it cannot be asked anything",
            fix="download it while there is a network, name its folder with --before or --oracle, or do without it: "
            "--models after",
        ) from None


def _switches(model: Any) -> bool:
    """Whether a model without its adapter is its base: not where the adapter came with a vocabulary of its own."""
    return isinstance(model, PeftModel) and resized_vocabulary(model.get_base_model()) is None


def _init_kwargs(place: str, run: RunFolder, dtype: str | None) -> dict[str, Any]:
    options = run.init_kwargs
    if run.parsed is None or place != run.parsed.model.model_name_or_path:
        options.pop("revision", None)
    if dtype is not None:
        options.pop(_QUANTIZATION, None)
        return options | {"dtype": dtype}
    if options.get(_QUANTIZATION) is not None and not is_bitsandbytes_available():
        raise input_error(
            expected="bitsandbytes, which loads the run's quantised model",
            got="none that is installed",
            why="the run trained on quantised weights, and its models are loaded as it loads them",
            fix="pip install bitsandbytes, or load the weights whole: --dtype bfloat16",
        )
    return options


def _row_options(source: Source) -> RowOptions:
    """As the rows of the run became tokens: its tokenizer and what its record says of templates."""
    run, arguments = source.run, source.run.run.record.arguments
    parsed = None if run.parsed is None else run.parsed.args
    place = str(run.folder) if (run.folder / "tokenizer_config.json").is_file() else run.base or source.place
    defaults: dict[str, Any] = {
        "template": None,
        "chat_template_kwargs": None,
        "max_length": UnlearningConfig.max_length,
    }
    known = {name: getattr(parsed, name, default) for name, default in defaults.items()}
    known |= {name: arguments[name] for name in defaults if name in arguments}
    return RowOptions(
        load_tokenizer(place, None, run.init_kwargs),
        known["max_length"],
        known["template"],
        None,
        chat_template_kwargs=known["chat_template_kwargs"],
    )


def _note(source: Source, model: Any, adapter_off: bool) -> str:
    if adapter_off:
        return "adapter off"
    if Path(source.place) != source.run.folder:
        return "never saw the forget rows" if source.name.startswith("oracle") else ""
    if suppression_identity(model) is not None:
        return "answers suppressed at inference"
    return "adapter on" if isinstance(model, PeftModel) else ""


def _here() -> str:
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is None:
        return "cpu"
    return ", ".join(["cpu", *(f"{accelerator.type}:{i}" for i in range(torch.accelerator.device_count()))])
