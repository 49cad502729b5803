"""The settings of a training that decide its weights, and the versions of what computed them."""

import importlib.metadata
import json
import platform
from pathlib import PurePath
from typing import Any

from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel, TrainingArguments

_PACKAGES = ("torch", "transformers", "accelerate", "datasets", "peft", "trl")

# Arguments that change no weight: where things go, what is shown and how rows are loaded. Evaluation stays among those
# that are compared, since it draws from the random numbers of training.
_WITHOUT_EFFECT = (
    "logging_", "log_", "save_", "hub_", "push_to_hub", "trackio_", "dataloader_num_workers", "dataloader_pin_memory",
    "dataloader_persistent", "dataloader_prefetch", "dataloader_multiprocessing", "do_", "ddp_timeout", "disable_tqdm",
    "report_to", "run_name", "project", "output_dir", "resume_from_checkpoint", "enable_jit_checkpoint",
    "restore_callback_states", "include_", "skip_memory_metrics", "local_rank", "torch_empty_cache_steps", "debug",
    "dataset_num_proc", "reference_cache_dir", "use_cache",
)  # fmt: skip

# Of the configurations of models and adapters: names, and what saving and loading write into them.
_NAMES = ("_name_or_path", "use_cache", "architectures", "transformers_version", "base_model_name_or_path", "revision",
          "inference_mode", "auto_mapping", "peft_version")  # fmt: skip


def training_settings(args: TrainingArguments, model: nn.Module, max_steps: int, micro_batches: int) -> dict[str, Any]:
    """What a replay needs to be the same, by name, as JSON takes it: arguments, and how model and adapters are made.

    Args:
        args: of the trainer.
        model: unwrapped.
        max_steps: optimizer steps of the whole schedule.
        micro_batches: of an epoch, on a rank.
    """
    own = {name: value for name, value in args.to_dict().items() if not name.startswith(_WITHOUT_EFFECT)}
    own |= {"max_steps": max_steps, "micro_batches": micro_batches, "processes": args.world_size}
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    if isinstance(base, PreTrainedModel):
        own |= _prefixed("config", base.config.to_dict())
    if isinstance(model, PeftModel):
        for name, config in model.peft_config.items():
            own |= _prefixed(f"adapter.{name}", config.to_dict())
    settings: dict[str, Any] = json.loads(json.dumps(own, default=_as_json))
    return settings


def _prefixed(prefix: str, values: dict[str, Any]) -> dict[str, Any]:
    return {f"{prefix}.{name}": value for name, value in values.items() if name not in _NAMES}


def _as_json(value: Any) -> Any:
    """What JSON has no form for; an object by its class, since its own words may have its address in memory."""
    if isinstance(value, set | frozenset):
        return sorted(value, key=str)
    return str(value) if isinstance(value, PurePath) else type(value).__qualname__


def versions() -> dict[str, str]:
    """Of the packages that compute a training, of Python and of the kind of machine."""
    present = {}
    for package in _PACKAGES:
        try:
            present[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {**present, "python": platform.python_version(), "machine": platform.machine()}


def differences(then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What differs between two sets of settings, a phrase each."""
    names = sorted({*then, *now})
    return [
        f"{name} {then.get(name)!r} then, {now.get(name)!r} now" for name in names if then.get(name) != now.get(name)
    ]
