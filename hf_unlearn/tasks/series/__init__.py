"""Runs in series: each method with each seed, in a process of its own, gone on with after a kill."""

from .plan import Series, plan_series
from .planned_run import PlannedRun
from .processes import run_series

__all__ = ["PlannedRun", "Series", "plan_series", "run_series"]
