"""Runs in series: each method with each seed, in a process of its own, gone on with after a kill."""

from .planned_run import PlannedRun
from .processes import run_series

__all__ = ["PlannedRun", "run_series"]
