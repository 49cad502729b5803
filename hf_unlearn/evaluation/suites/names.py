"""`SUITES`: the suites by name, those of plugins included."""

from collections.abc import Callable, Mapping
from typing import Any

from ...plugins import Plugin, PluginTable
from ..harness.suite import lm_eval
from .copyright import copyright as copyright_suite
from .custom import custom
from .harmful import harmful
from .muse import muse
from .rwku import rwku
from .tofu import tofu
from .unlearn_qa import unlearn_qa
from .wmdp import wmdp

# What makes a Suite, or an LMEvalSuite, of rows and options of its own.
SuiteMaker = Callable[..., Any]


def _makers(plugin: Plugin) -> Mapping[str, Any]:
    for name, maker in plugin.suites.items():
        if not callable(maker):
            raise ValueError(f"expected what makes the suite {name!r}, a function, got {type(maker).__name__}")
    return plugin.suites


SUITES = PluginTable[SuiteMaker](
    "suite",
    {
        "harmful": harmful,
        "copyright": copyright_suite,
        "tofu": tofu,
        "muse": muse,
        "wmdp": wmdp,
        "rwku": rwku,
        "unlearn_qa": unlearn_qa,
        "custom": custom,
        "lm_eval": lm_eval,
    },
    _makers,
)
