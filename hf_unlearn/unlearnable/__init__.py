"""Trainings that are logged row by row, so that rows can be deleted from them exactly later."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .callback import UnlearnableCallback
    from .cohort_files import Cohort, drop_cohort
    from .cohorts import load_cohorts, retrain_cohort, train_cohorts
    from .log import Step, TrainingLog, read_log
    from .repeat import replay

# Imported on first use: a log is read without transformers, which takes seconds.
_HOMES = {
    "Cohort": "cohort_files",
    "drop_cohort": "cohort_files",
    "load_cohorts": "cohorts",
    "retrain_cohort": "cohorts",
    "train_cohorts": "cohorts",
    "Step": "log",
    "TrainingLog": "log",
    "UnlearnableCallback": "callback",
    "read_log": "log",
    "replay": "repeat",
}

__all__ = [
    "Cohort",
    "Step",
    "TrainingLog",
    "UnlearnableCallback",
    "drop_cohort",
    "load_cohorts",
    "read_log",
    "replay",
    "retrain_cohort",
    "train_cohorts",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
