"""`FunctionMetric`: a metric function as an `evaluate.Metric`, which collects its rows in the usual cache."""

from collections.abc import Mapping
from typing import Any

import evaluate
from datasets import Features, List, Value

from ..errors import input_error
from .checks import flag_rows, flags, number_rows, numbers, same_lengths, strings
from .registry import METRICS, MetricFunction, unknown_setting
from .result import MetricResult, value_and_n
from .truth import require_components


class FunctionMetric(evaluate.Metric):
    """One entry of METRICS with its settings; made by `evaluate_metric`.

    Args:
        name: of the metric.
        settings: arguments of its function that are no rows, such as `kind`.
        options: of evaluate.Metric (cache_dir, keep_in_memory, num_process, process_id, experiment_id, ...).
    """

    def __init__(self, name: str, settings: Mapping[str, Any], **options: Any) -> None:
        self._entry: MetricFunction = METRICS[name]
        self._settings = dict(settings)
        self._name = name
        super().__init__(config_name=name, **options)
        self.info.module_name = name  # evaluate takes the class's; evaluate.combine tells metrics apart by it

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=self._entry.summary,
            citation="",
            inputs_description=f"\nInputs: {', '.join(self._entry.features)}.",
            features=Features(self._entry.features),
        )

    def compute(self, **inputs: Any) -> dict[str, Any] | None:
        """The metric of all rows added and of those given here, as {name: value, name_n: n, name_low: ..., ...}."""
        # Before any row is written: what fails later would leave the cache behind with rows of this call.
        self._entry.require_settings(self._name, self._settings | self._own(inputs))
        if len(self) == 0 and all(inputs.get(name) is None for name in self._entry.features):
            raise self._missing(next(iter(self._entry.features)))
        result: dict[str, Any] | None = super().compute(**inputs)
        return result

    def add(self, *, prediction: Any = None, reference: Any = None, **inputs: Any) -> None:
        """Add one row; where the arguments are no columns of rows, the same as `add_batch`."""
        row = {"predictions": prediction, "references": reference, **inputs}
        present = {name: given for name, given in row.items() if given is not None}
        self.add_batch(**(present if self._entry.whole else {name: [given] for name, given in present.items()}))

    def add_batch(self, **inputs: Any) -> None:
        """Add rows; where an argument is no column of rows but a number or a sample of its own length, add that."""
        features = self._entry.features
        # evaluate passes None for predictions and references that a metric does not have.
        unknown = [name for name, given in inputs.items() if name not in features and given is not None]
        missing = [name for name in features if inputs.get(name) is None]
        if missing:
            raise self._missing(missing[0])
        if unknown:
            raise unknown_setting(self._name, unknown[0], self._entry)
        batch = {name: inputs[name] for name in features}
        if self._entry.whole:
            batch = {name: [_whole(name, given)] for name, given in batch.items()}
        else:
            batch = {name: _column(name, given, features[name]) for name, given in batch.items()}
            same_lengths(**batch)
        super().add_batch(**batch)

    def _missing(self, name: str) -> ValueError:
        features = self._entry.features
        return input_error(
            expected=f"{self._name} with {' and '.join(features)}",
            got=f"no {name}",
            why="the metric is computed from them",
            fix=f"pass {', '.join(f'{feature}=...' for feature in features)} by name",
        )

    def _compute(self, **inputs: Any) -> dict[str, Any]:
        join = self._joined if self._entry.whole else lambda name, rows: rows
        arguments = [join(name, inputs[name]) for name in self._entry.features]
        result = self._entry.function(*arguments, **(self._settings | self._own(inputs)))
        figures = {self._name: result.value, f"{self._name}_n": result.n}
        ends = {f"{self._name}_low": result.low, f"{self._name}_high": result.high}
        return figures if result.interval is None else figures | ends

    def _joined(self, name: str, batches: list[Any]) -> Any:
        """The batches of an argument as one: samples one after the other, a number as it is."""
        if isinstance(batches[0], list):
            return [value for batch in batches for value in batch]
        if len(batches) > 1:
            raise input_error(
                expected=f"one {name} for {self._name}",
                got=f"{len(batches)} of them",
                why="it compares two numbers, and has no mean over several",
                fix="call compute once for each",
            )
        return batches[0]

    def _own(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """The settings among the arguments of compute; evaluate.combine passes those of other metrics too."""
        known = {name for entry in METRICS.values() for name in (*entry.features, *entry.settings)}
        for name in inputs:
            if name not in known | {"predictions", "references"}:
                raise unknown_setting(self._name, name, self._entry)
        return {name: given for name, given in inputs.items() if name in self._entry.settings}


def _column(name: str, rows: Any, feature: Any) -> list[Any]:
    """The rows of an argument, checked here: the messages of evaluate quote rows, and it takes 0.5 for True."""
    if feature == Value("string"):
        return strings(name, rows)
    if feature == Value("bool"):
        return flags(name, rows).tolist()
    if feature == Value("float64"):
        return numbers(name, rows).tolist()
    nested = flag_rows(name, rows) if feature == List(Value("bool")) else number_rows(name, rows)
    return [row.tolist() for row in nested]


def _whole(name: str, given: Any) -> Any:
    """An argument that is a number, a sample or the components of model utility, as one row."""
    if isinstance(given, Mapping):
        require_components(given)
        return {component: value_and_n(component, value)[0] for component, value in given.items()}
    if isinstance(given, MetricResult | int | float):  # numpy's float64 is a float
        return value_and_n(name, given)[0]
    return numbers(name, given).tolist()
