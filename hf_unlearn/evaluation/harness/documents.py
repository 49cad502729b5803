"""Metrics with intervals, from what lm-evaluation-harness returns of each document."""

import math
import numbers
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ...metrics import MetricResult, mean, proportion

Values = dict[str, dict[str, list[Any]]]  # task -> metric -> value of each document


def harness_metrics(output: Mapping[str, Any], tags: Mapping[str, list[str]], seed: int) -> dict[str, MetricResult]:
    """Metrics of tasks, of the harness's groups and of tags, by name."""
    values = {
        task: {key: _of_documents(key, rows) for key in _metric_keys(output["results"][task])}
        for task, rows in output["samples"].items()
    }
    results = {}
    for name, figures in output["results"].items():
        for key in _metric_keys(figures):
            documents = values[name][key] if name in values else _pooled(_leaves(name, output), key, values)
            results[_title(name, key)] = _result(figures[key], documents, seed)
    for tag, members in tags.items():
        # What is in all members a mean over documents is one over the documents of all members too.
        shared = set.intersection(*(set(values[member]) for member in members))
        for key in sorted(shared):
            if all(results[_title(member, key)].interval is not None for member in members):
                documents = _pooled(members, key, values)
                results[_title(tag, key)] = _result(float(np.mean(documents)), documents, seed)
    return results


def _metric_keys(figures: Mapping[str, Any]) -> list[str]:
    """Names like "acc,none" (metric and filter), without standard errors."""
    return [key for key in figures if "," in key and not key.rpartition(",")[0].endswith("_stderr")]


def _title(name: str, key: str) -> str:
    return f"{name}/{key.removesuffix(',none')}"


def _of_documents(key: str, rows: Sequence[Mapping[str, Any]]) -> list[Any]:
    """The value of each document; NaN where a log-probability is, which argmax would take for the best choice."""
    metric, _, name = key.rpartition(",")
    mine = [row for row in rows if row["filter"] == name and metric in row["metrics"]]
    return [math.nan if any(map(_is_nan, row["filtered_resps"])) else row[metric] for row in mine]


def _is_nan(response: Any) -> bool:
    number = response[0] if isinstance(response, tuple | list) and response else response
    return isinstance(number, float) and math.isnan(number)


def _leaves(group: str, output: Mapping[str, Any]) -> list[str]:
    """The tasks of a group, those of its subgroups too."""
    leaves: list[str] = []
    for member in output["group_subtasks"].get(group, []):
        leaves += [member] if member in output["samples"] else _leaves(member, output)
    return leaves


def _pooled(tasks: Iterable[str], key: str, values: Values) -> list[Any]:
    return [value for task in tasks for value in values[task].get(key, [])]


def _result(value: float, documents: Sequence[Any], seed: int) -> MetricResult:
    """A metric with the interval that fits it, if it is a mean over documents."""
    if all(isinstance(value_of_document, numbers.Real) for value_of_document in documents):
        plain = [float(value_of_document) for value_of_document in documents]
        if any(map(math.isnan, plain)):
            return mean(plain, seed=seed)
        if math.isclose(float(np.mean(plain)), value, rel_tol=1e-6, abs_tol=1e-9):
            return (
                proportion([value_of_document == 1 for value_of_document in plain])
                if set(plain) <= {0.0, 1.0}
                else mean(plain, seed=seed)
            )
    return MetricResult(value=float(value), n=len(documents))
