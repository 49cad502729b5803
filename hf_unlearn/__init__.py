"""Make a language model forget: a Hugging Face Trainer that unlearns one set of rows and keeps another."""

import importlib
from typing import TYPE_CHECKING, Any

from .version import __version__

if TYPE_CHECKING:
    from .data import DataCollatorForUnlearning, ForgetRetainDataset
    from .training.config import UnlearningConfig
    from .training.trainer import UnlearningTrainer
    from .unlearnable import UnlearnableCallback

# Imported on first use: torch and transformers take seconds, which `hf-unlearn --help` should not.
_HOMES = {
    "DataCollatorForUnlearning": "data",
    "ForgetRetainDataset": "data",
    "UnlearningConfig": "training.config",
    "UnlearningTrainer": "training.trainer",
    "UnlearnableCallback": "unlearnable.callback",
}

__all__ = [
    "DataCollatorForUnlearning",
    "ForgetRetainDataset",
    "UnlearnableCallback",
    "UnlearningConfig",
    "UnlearningTrainer",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
