"""What a metric means to a reader: its label, format, unit and direction, and how verdict and card read it.

Each file of metrics describes those that it computes in its `DESCRIPTIONS`; `registry.METRIC_DESCRIPTIONS` has them by
name. A name is the key in a result: `retain_nll` is the metric `nll` of the set `retain`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import value_error

PERCENT = ".1%"
# The sets of the packaged suites: what a label calls each, and whether its answers are to be known (None: neither).
_SETS: dict[str, tuple[str, bool | None]] = {
    "forget": ("forget", False),
    "retain": ("retain", True),
    "in_scope": ("in-scope", False),
    "out_of_scope": ("out-of-scope", True),
    "holdout": ("holdout", None),
    "real_authors": ("real-authors", True),
    "world_facts": ("world-facts", True),
    "verbmem": ("continued", False),
    "request": ("requested", False),
}
_FORMAT = re.compile(r"\.\d{1,2}[%efg]")


@dataclass(frozen=True)
class MetricDescription:
    """How a metric is named, written and read.

    Attributes:
        name: key in `EvaluationResult.metrics`.
        label: what tables, cards and reports call it; the name if empty.
        about: what it measures, in a line.
        unit: "nats per token", "share", "percent", ...
        format: of a value, as Python's `format` takes it: ".1%", ".3f", ".2e", ".3g".
        greater_is_better: whether more of it is wanted; of forget rows, whether more of it means more forgotten. None
            where neither holds (it is compared with the oracle's, or says something of the attack).
        rows: set that it is about ("forget", "retain", ...); "" for several sets.
        damage: of a share of broken answers, the end of "50% of its ...": "answers to forget prompts are empty". From
            a half on the verdict is "broken". "" for other metrics.
        attack: of the AUC of a membership attack, its name. "" for other metrics.

    Raises:
        ValueError: no name, or a format of another kind.
    """

    name: str
    label: str = ""
    about: str = ""
    unit: str = ""
    format: str = ".3f"
    greater_is_better: bool | None = None
    rows: str = ""
    damage: str = ""
    attack: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise value_error("name of a metric", "a text", self.name)
        if not isinstance(self.format, str) or not _FORMAT.fullmatch(self.format):
            raise value_error(f"format of {self.name}", "a precision and one of % e f g, such as '.1%'", self.format)

    @property
    def title(self) -> str:
        """The label, or else the name."""
        return self.label or self.name

    @property
    def in_points(self) -> bool:
        """Whether values are percentages, so that a difference is one of points."""
        return self.format.endswith("%")

    def write(self, value: float) -> str:
        """A value as tables have it."""
        return format(value, self.format)


def of_sets(
    metric: str, label: str, *, knowing: bool, labels: Mapping[str, str] | None = None, **more: Any
) -> tuple[MetricDescription, ...]:
    """The descriptions of a metric of each set of the packaged suites.

    Args:
        metric: its name without the set's.
        label: without the set's name.
        knowing: whether a model that knows the answers has more of it (a probability) or less (an NLL).
        labels: of sets for which "set label" would say it badly.
        more: other fields of the descriptions.
    """
    described = []
    for name, (words, wanted) in _SETS.items():
        title = (labels or {}).get(name, f"{words} {label}")
        better = None if wanted is None else wanted == knowing
        fields = {"greater_is_better": better, "rows": name} | more
        described.append(MetricDescription(f"{name}_{metric}", title, **fields))
    return tuple(described)


def undescribed(name: str) -> MetricDescription:
    """What can be told of a metric from its name alone."""
    share = name.endswith(("_rate", "_accuracy"))
    return MetricDescription(
        name,
        format=PERCENT if share else ".3f",
        rows=next((rows for rows in ("forget", "retain") if name.startswith(f"{rows}_")), ""),
        attack=name.removesuffix("_auc").replace("_", "-") if name.endswith("_auc") else "",
    )
