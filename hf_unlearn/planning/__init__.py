"""The GPU memory of a run, calculated before it starts (`hf-unlearn plan`) from the model's config alone."""

from .choice import Option, Plan, make_plan
from .memory import Memory, Planner
from .moments import MemoryBreakdown
from .rendering import plan_to_data, render_plan
from .request import Hardware, Request, make_request
from .shapes import KNOWN_SHAPES, load_config

__all__ = [
    "KNOWN_SHAPES",
    "Hardware",
    "Memory",
    "MemoryBreakdown",
    "Option",
    "Plan",
    "Planner",
    "Request",
    "load_config",
    "make_plan",
    "make_request",
    "plan_to_data",
    "render_plan",
]
