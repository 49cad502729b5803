"""What a run needs of GPU memory, before it is started: `hf-unlearn plan`. Weights are neither loaded nor made."""

from .choice import Option, Plan, make_plan
from .memory import Memory, MemoryBreakdown, Planner
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
