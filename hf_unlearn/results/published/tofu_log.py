"""Logs of TOFU's own code (Maini et al. 2401.06121): the aggregates of its rows under this package's names."""

from collections.abc import Mapping
from typing import Any

from ...metrics.tofu_log import tofu_aggregates

_SETS = {"Forget": "forget", "Retain": "retain", "Real Authors": "real_authors", "Real World": "world_facts"}
_KINDS = {"Prob.": "probability", "ROUGE": "rouge", "Truth Ratio": "truth_ratio"}
_NAMES = {
    **{f"{kind} {rows}": f"{ours}_{metric}" for rows, ours in _SETS.items() for kind, metric in _KINDS.items()},
    "Model Utility": "model_utility",
    "Forget Quality": "forget_quality",
    "KS Test Forget": "ks_distance",
}
OF_RETRAINED = ("forget_quality", "ks_distance")  # what needs the log of the retrained model, too
PLAIN_LETTERS = "ROUGE reads the letters a to z alone there: a name with an accent falls apart; here it is a word."
DIFFERENCES: tuple[str, ...] = (PLAIN_LETTERS,)


def is_log(content: Mapping[str, Any]) -> bool:
    """Whether JSON is a log of single rows, by set and field."""
    return any(name.startswith("eval_") and name.endswith(".json") for name in content)


def figures(log: Mapping[str, Any], retrained: Mapping[str, Any] | None) -> dict[str, float]:
    """Aggregates by this package's names; forget quality where the log of the retrained model is there, too."""
    aggregates = tofu_aggregates(log, retrained)
    return {ours: aggregates[theirs].value for theirs, ours in _NAMES.items() if theirs in aggregates}
