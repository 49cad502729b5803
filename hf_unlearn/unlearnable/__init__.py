"""Trainings that are logged row by row, so that rows can be deleted from them exactly later."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .callback import UnlearnableCallback
    from .log import Step, TrainingLog, read_log
    from .repeat import replay

# Imported on first use: a log is read without transformers, which takes seconds.
_HOMES = {
    "Step": "log",
    "TrainingLog": "log",
    "UnlearnableCallback": "callback",
    "read_log": "log",
    "replay": "repeat",
}

__all__ = ["Step", "TrainingLog", "UnlearnableCallback", "read_log", "replay"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
