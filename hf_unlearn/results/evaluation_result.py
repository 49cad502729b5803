"""`EvaluationResult`: the outcome of an evaluation as JSON. It holds metrics and hashes, and no text of any row."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypedDict

from ..errors import input_error
from ..metrics import MetricDescription, MetricResult
from .files import atomic_write_text, read_json
from .schema import SchemaError, check_schema, shown, wrong_file

_FORMAT = 1  # raised when the file's keys change

# The packaged suites' pairs of metrics (forget, utility), which results that carry none are read with.
PACKAGED_PAIRS = {
    "harmful": ("harmful_rate", "retain_accuracy"),
    "copyright": ("recited_rate", "retain_rouge"),
    "tofu": ("forget_probability", "model_utility"),
    "muse": ("forget_knowmem", "retain_knowmem"),
    "wmdp": ("forget_choice_above_chance", "retain_choice_accuracy"),
    "rwku": ("forget_level2_rouge", "neighbor_level2_rouge"),
    "custom": ("forget_accuracy", "retain_accuracy"),
    "unlearn_qa": ("forget_rouge", "retain_rouge"),
}
# Left out of the file where they say nothing, as in results that were written before there were such fields.
_OPTIONAL = ("descriptions", "forget_metric", "utility_metric", "package")


@dataclass(frozen=True)
class EvaluationResult:
    """What a suite found on a model.

    Attributes:
        suite: name of the suite.
        metrics: by name, each with n and, where it has one, a 95% interval.
        row_scores: numbers of single rows (truth ratios, NLL per token), for comparison with another model.
        rows: by set, how many rows it has and the SHA-256 of their token ids; never their text.
        settings: of the suite.
        warnings: what a reader of the metrics must know.
        headline: metrics that a table shows, in order; () for all.
        forget_metric: of what was forgotten, lower is more; "" where the suite has none, and in results of before.
        utility_metric: of what was kept, higher is more; likewise.
        descriptions: of metrics that are not this package's own, by name: what a table, a card and a report call them.
        package: that the suite comes from, with its version; "" for this one or a script.
        tokenizer: SHA-256 of the tokenizer's vocabulary.
        seed: of sampled answers.
        processes: ranks that shared the work.
        cost: seconds, forwards of this rank, rows asked for and rows scored.
        run: dtype, batch sizes and whether there was a fluency model.
        versions: of the libraries.
    """

    suite: str
    metrics: dict[str, MetricResult]
    row_scores: dict[str, list[float]] = field(default_factory=dict)
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    headline: tuple[str, ...] = ()
    forget_metric: str = ""
    utility_metric: str = ""
    descriptions: dict[str, MetricDescription] = field(default_factory=dict)
    package: str = ""
    tokenizer: str = ""
    seed: int = 0
    processes: int = 1
    cost: dict[str, float] = field(default_factory=dict)
    run: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    def __getitem__(self, name: str) -> MetricResult:
        return self.metrics[name]

    @property
    def pair(self) -> tuple[str, str] | None:
        """The metrics of what was forgotten and of what was kept; None for a suite without such a pair."""
        if self.forget_metric and self.utility_metric:
            return self.forget_metric, self.utility_metric
        return PACKAGED_PAIRS.get(self.suite)

    def values(self) -> dict[str, float]:
        """The metrics as plain numbers, as a Trainer logs them."""
        return {name: result.value for name, result in self.metrics.items()}

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it; numbers that are not finite are words."""
        plain = asdict(self) | {"metrics": {name: metric.to_dict() for name, metric in self.metrics.items()}}
        plain["row_scores"] = {name: [_written(score) for score in row] for name, row in self.row_scores.items()}
        kept = {name: value for name, value in plain.items() if value or name not in _OPTIONAL}
        return {"format": _FORMAT} | kept

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the result so that a reader sees a whole file or none."""
        atomic_write_text(path, json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n")


def load_result(path: str | os.PathLike[str]) -> EvaluationResult:
    """The result that `EvaluationResult.save` wrote.

    Raises:
        ValueError: there is no such file, or it is no result.
    """
    try:
        stored = read_json(path)
    except (OSError, ValueError) as error:
        raise _no_result(path, f"what cannot be read ({type(error).__name__})") from None
    if not isinstance(stored, Mapping) or stored.get("format") != _FORMAT:
        raise _no_result(path, "a JSON file of another kind")
    try:
        check_result(stored)
    except SchemaError as error:
        fix = "undo the change, or evaluate again"
        why = "an evaluation compares itself with the numbers in it"
        raise wrong_file(Path(path).name, error, why, fix) from None
    return restored(stored)


class _RowKeys(TypedDict, total=False):
    count: int
    sha256: str | None


def check_result(stored: Any, where: str = "") -> None:
    """Raise a SchemaError unless a value of JSON is what `EvaluationResult.to_dict` writes.

    Args:
        stored: as it was read.
        where: its path in its file.
    """
    if isinstance(stored, Mapping):
        if stored.get("format", _FORMAT) != _FORMAT:
            raise SchemaError(f"{where}.format", str(_FORMAT), shown(stored["format"]))
        stored = {name: value for name, value in stored.items() if name != "format"}
    check_schema(stored, EvaluationResult, where)
    inside = f"{where}." if where else ""
    check_schema(stored.get("rows", {}), dict[str, _RowKeys], f"{inside}rows")
    for name, description in stored.get("descriptions", {}).items():
        try:
            MetricDescription(**description)
        except ValueError as error:
            raise SchemaError(f"{inside}descriptions.{name}", "a description of a metric", str(error)) from None


def restored(stored: Mapping[str, Any]) -> EvaluationResult:
    """What `EvaluationResult.to_dict` wrote."""
    fields = {name: value for name, value in stored.items() if name != "format"}
    fields["metrics"] = {name: MetricResult.from_dict(metric) for name, metric in fields["metrics"].items()}
    scores = fields.get("row_scores", {})
    fields["row_scores"] = {name: [float(score) for score in row] for name, row in scores.items()}
    fields["descriptions"] = {
        name: MetricDescription(**description) for name, description in fields.get("descriptions", {}).items()
    }
    fields["headline"] = tuple(fields.get("headline", ()))
    return EvaluationResult(**fields)


def _no_result(path: Any, got: str) -> ValueError:
    return input_error(
        expected=f"a result written by EvaluationResult.save at {Path(path).name}",
        got=got,
        why="an evaluation compares itself with the numbers in it",
        fix="pass the file that an evaluation of that model wrote, or the EvaluationResult itself",
    )


def _written(number: float) -> float | str:
    return number if abs(number) < float("inf") else str(number)
