"""Logs of OpenUnlearning (Dorna et al. 2506.12618): their metrics under this package's names."""

import numbers
from collections.abc import Collection, Mapping
from typing import Any

from . import tofu_log

_TOFU = {
    "model_utility": "model_utility",
    "forget_quality": "forget_quality",
    "forget_Q_A_Prob": "forget_probability",
    "forget_Q_A_ROUGE": "forget_rouge",
    "forget_truth_ratio": "forget_truth_ratio",
    "forget_Truth_Ratio": "forget_truth_ratio",
    "retain_Q_A_Prob": "retain_probability",
    "retain_Q_A_ROUGE": "retain_rouge",
    "retain_Truth_Ratio": "retain_truth_ratio",
    "ra_Q_A_Prob_normalised": "real_authors_probability",
    "ra_Q_A_ROUGE": "real_authors_rouge",
    "ra_Truth_Ratio": "real_authors_truth_ratio",
    "wf_Q_A_Prob_normalised": "world_facts_probability",
    "wf_Q_A_ROUGE": "world_facts_rouge",
    "wf_Truth_Ratio": "world_facts_truth_ratio",
    "extraction_strength": "forget_extraction_strength",
    "exact_memorization": "forget_exact_memorization",
    "privleak": "min_k_privleak",
}
_MUSE = {
    "forget_verbmem_ROUGE": "forget_verbmem",
    "forget_knowmem_ROUGE": "forget_knowmem",
    "retain_knowmem_ROUGE": "retain_knowmem",
    "extraction_strength": "verbmem_extraction_strength",
    "privleak": "min_k_privleak",
}
# AUCs whose members are the holdout rows: 1 - AUC here.
_TURNED = {
    "mia_min_k": "min_k_auc",
    "mia_min_k_plus_plus": "min_k_plus_plus_auc",
    "mia_loss": "loss_auc",
    "mia_zlib": "zlib_auc",
}
_OF_MUSE = ("forget_verbmem_ROUGE", "forget_knowmem_ROUGE", "retain_knowmem_ROUGE")
_LEADING = {
    "tofu": ("model_utility", "forget_quality", "forget_probability", "forget_rouge", "forget_truth_ratio"),
    "muse": ("forget_verbmem", "forget_knowmem", "retain_knowmem", "min_k_privleak"),
}
# What is not as here, by the metrics that it is about.
_DIFFERENCES = (
    (("rouge",), tofu_log.PLAIN_LETTERS),
    (
        ("verbmem", "knowmem"),
        "ROUGE F1 is of stemmed words there; here, as in MUSE's own code, of words as they stand.",
    ),
    (("_auc",), "Membership AUCs have the holdout rows for members there; shown is 1 - AUC, as here."),
    (
        ("privleak",),
        "Where the retrained model's log was not given, privacy leakage is against an AUC of 0.5; here it is absent.",
    ),
    (
        ("extraction_strength",),
        "A row whose last token is wrong has an extraction strength of 1 / n there, and 0 here.",
    ),
)


def figures(log: Mapping[str, Any]) -> tuple[str, dict[str, float], tuple[str, ...]]:
    """The suite that a log is of, its figures under this package's names, and which leading ones it lacks.

    Args:
        log: {metric: value} of a summary, or {metric: {"agg_value": value, ...}}.
    """
    values = {name: value for name, entry in log.items() if (value := _value(entry)) is not None}
    suite, names = ("muse", _MUSE) if any(name in values for name in _OF_MUSE) else ("tofu", _TOFU)
    found = {names[name]: value for name, value in values.items() if name in names}
    found |= {ours: 1 - values[theirs] for theirs, ours in _TURNED.items() if theirs in values}
    return suite, found, tuple(name for name in _LEADING[suite] if name not in found)


def differences(metrics: Collection[str]) -> tuple[str, ...]:
    """How the definitions of these metrics are not this package's."""
    return tuple(
        sentence for parts, sentence in _DIFFERENCES if any(part in metric for part in parts for metric in metrics)
    )


def _value(entry: Any) -> float | None:
    """A metric's aggregate; None for what is none."""
    value = entry.get("agg_value") if isinstance(entry, Mapping) else entry
    if isinstance(value, Mapping):  # of attacks: {"auc": ...} in some versions
        value = value.get("auc")
    return float(value) if isinstance(value, numbers.Real) and not isinstance(value, bool) else None
