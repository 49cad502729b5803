"""The gate: whether a run may be released, by what attacks got out of it and the limits of a policy."""

from .decide import Decision, Gate, gate
from .policy import WAYS, Limits, Policy, packaged_policies, read_policy
from .words import gate_table

__all__ = [
    "WAYS",
    "Decision",
    "Gate",
    "Limits",
    "Policy",
    "gate",
    "gate_table",
    "packaged_policies",
    "read_policy",
]
