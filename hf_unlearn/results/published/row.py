"""One model's figures from another project's log, what the log lacks, and what keeps figures from being comparable."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

# What the suites put first; a test holds these against the suites, which lie above this folder.
HEADLINES = {
    "tofu": (
        "model_utility",
        "forget_quality",
        "ks_distance",
        "forget_probability",
        "forget_rouge",
        "forget_truth_ratio",
        "forget_extraction_strength",
        "retain_probability",
        "retain_rouge",
        "min_k_auc",
        "min_k_privleak",
        "answer_perplexity",
        "broken_rate",
    ),
    "muse": (
        "forget_verbmem",
        "forget_knowmem",
        "retain_knowmem",
        "min_k_privleak",
        "verbmem_extraction_strength",
        "forget_nll",
        "retain_nll",
        "min_k_auc",
        "answer_perplexity",
        "broken_rate",
    ),
}
# Figures that only a comparison with the retrained model gives.
_OF_ORACLE = ("forget_quality", "ks_distance", "min_k_privleak", "privleak")


@dataclass(frozen=True)
class PublishedRow:
    """What a log says of one model.

    Attributes:
        source: whose log it is: "OpenUnlearning", "TOFU" or "MUSE".
        name: of the method or the file.
        suite: of this package that measures the same: "tofu" or "muse".
        figures: by this package's name of the metric; finite numbers alone.
        missing: first figures of the suite that the log lacks, then "oracle" (no figure is set against a retrained
            model), "intervals" and "attacks" (nothing tried to bring the forgotten back).
        digest: SHA-256 of the file.
        notes: sentences on figures that are not what the suite's of the same name are, or that were left out.
    """

    source: str
    name: str
    suite: str
    figures: Mapping[str, float]
    missing: tuple[str, ...]
    digest: str
    notes: tuple[str, ...] = ()


def published_row(
    source: str, name: str, suite: str, values: Mapping[str, float], digest: str, notes: Iterable[str] = ()
) -> PublishedRow:
    """The row of some values by this package's names; those that are no finite numbers are left out, and said."""
    figures = {metric: float(value) for metric, value in values.items() if math.isfinite(value)}
    broken = [f"{metric} is {values[metric]} in the log and left out." for metric in values if metric not in figures]
    absent = [metric for metric in HEADLINES[suite] if metric not in figures]
    oracle = [] if any(metric in figures for metric in _OF_ORACLE) else ["oracle"]
    return PublishedRow(
        source=source,
        name=name,
        suite=suite,
        figures=figures,
        missing=(*absent, *oracle, "intervals", "attacks"),
        digest=digest,
        notes=(*notes, *broken),
    )
