"""The tables of metrics: functions with their inputs, and what each metric of a result means to a reader.

A metric's formula and its description stand in its own file; adding one is that file and an entry here.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from datasets import List, Value

from ..errors import input_error, nearest
from ..plugins import Plugin, PluginTable
from . import (
    agreement,
    choices,
    entropy,
    fluency,
    harm,
    judged,
    likelihood,
    membership,
    overlap,
    refusal,
    rwku,
    text,
    truth,
    unseen,
)
from .description import MetricDescription
from .entropy import n_gram_entropy
from .fluency import broken_rate, distinct_n, empty_rate, repetition_rate
from .harm import efficacy, harmful_rate
from .likelihood import (
    answer_probability,
    exact_memorization,
    extraction_strength,
    option_probability,
    perplexity,
    token_nll,
)
from .membership import membership_auc, privleak, relative_difference, tpr_at_fpr
from .overlap import bleu, common_substring, rouge_f1, rouge_recall
from .refusal import refusal_rate
from .result import MetricResult
from .text import accuracy
from .truth import UTILITY_COMPONENTS, forget_quality, ks_distance, model_utility, truth_ratio

# Arguments of evaluate.Metric, beside the settings of the metric's function.
METRIC_OPTIONS = ("cache_dir", "experiment_id", "keep_in_memory", "num_process", "process_id", "timeout")

_TEXT, _NUMBER, _FLAG = Value("string"), Value("float64"), Value("bool")


@dataclass(frozen=True)
class MetricFunction:
    """A metric and what `evaluate` feeds it with.

    Attributes:
        function: gives a MetricResult; its first arguments are the features, in order.
        features: by name, of the datasets library: `predictions` and `references` where they are answers and what was
            expected, else the function's own argument.
        whole: the arguments are no columns of rows of one length: each is a number, or a sample of its own length.
        description: of a plugin's metric, which gives it its name; this package's own stand in a table of their own.
    """

    function: Callable[..., MetricResult]
    features: Mapping[str, Any]
    whole: bool = False
    description: MetricDescription | None = None

    @property
    def settings(self) -> dict[str, inspect.Parameter]:
        """The function's other arguments, by name."""
        return dict(list(inspect.signature(self.function).parameters.items())[len(self.features) :])

    @property
    def summary(self) -> str:
        """The first line of the function's docstring."""
        return (inspect.getdoc(self.function) or "").splitlines()[0]

    def require_settings(self, name: str, given: Mapping[str, Any]) -> None:
        """Raise for a setting that the function does not have, and for one that it needs and is not given."""
        for setting in given:
            if setting not in self.settings:
                raise unknown_setting(name, setting, self)
        for setting, parameter in self.settings.items():
            if parameter.default is parameter.empty and setting not in given:
                raise input_error(
                    expected=f"{setting} for {name}",
                    got="none",
                    why="it has no default: each value is another metric",
                    fix=f"pass {setting}=... to evaluate_metric({name!r}, ...) or to compute",
                )


_ANSWERS = {"predictions": _TEXT}
_PAIRS = {"predictions": _TEXT, "references": _TEXT}
_TOKEN_COUNTS = {"nll_sum": _NUMBER, "lengths": _NUMBER}
_TOKEN_FLAGS = {"correct": List(_FLAG)}
_RATIOS = {"ratios": List(_NUMBER), "retrained_ratios": List(_NUMBER)}
_SCORES = {"member_scores": List(_NUMBER), "nonmember_scores": List(_NUMBER)}

_PACKAGED = {
    "answer_probability": MetricFunction(answer_probability, {"nll_per_token": _NUMBER}),
    "option_probability": MetricFunction(
        option_probability, {"nll_per_token": _NUMBER, "options_nll_per_token": List(_NUMBER)}
    ),
    "token_nll": MetricFunction(token_nll, _TOKEN_COUNTS),
    "perplexity": MetricFunction(perplexity, _TOKEN_COUNTS),
    "exact_memorization": MetricFunction(exact_memorization, _TOKEN_FLAGS),
    "extraction_strength": MetricFunction(extraction_strength, _TOKEN_FLAGS),
    "truth_ratio": MetricFunction(truth_ratio, {"ratios": _NUMBER}),
    "forget_quality": MetricFunction(forget_quality, _RATIOS, whole=True),
    "ks_distance": MetricFunction(ks_distance, _RATIOS, whole=True),
    "model_utility": MetricFunction(
        model_utility, {"components": dict.fromkeys(UTILITY_COMPONENTS, _NUMBER)}, whole=True
    ),
    "membership_auc": MetricFunction(membership_auc, _SCORES, whole=True),
    "tpr_at_fpr": MetricFunction(tpr_at_fpr, _SCORES, whole=True),
    "privleak": MetricFunction(privleak, {"auc": _NUMBER, "retrained_auc": _NUMBER}, whole=True),
    "relative_difference": MetricFunction(relative_difference, {"value": _NUMBER, "baseline": _NUMBER}, whole=True),
    "accuracy": MetricFunction(accuracy, _PAIRS),
    "refusal_rate": MetricFunction(refusal_rate, _ANSWERS),
    "empty_rate": MetricFunction(empty_rate, _ANSWERS),
    "repetition_rate": MetricFunction(repetition_rate, _ANSWERS),
    "broken_rate": MetricFunction(broken_rate, _ANSWERS),
    "n_gram_entropy": MetricFunction(n_gram_entropy, _ANSWERS),
    "distinct_n": MetricFunction(distinct_n, _ANSWERS),
    "rouge_recall": MetricFunction(rouge_recall, _PAIRS),
    "rouge_f1": MetricFunction(rouge_f1, _PAIRS),
    "common_substring": MetricFunction(common_substring, _PAIRS),
    "bleu": MetricFunction(bleu, _PAIRS),
    "harmful_rate": MetricFunction(harmful_rate, {"flags": _FLAG}),
    "efficacy": MetricFunction(efficacy, {"before": _NUMBER, "after": _NUMBER}, whole=True),
}
_DESCRIBED = (
    *(agreement, choices, entropy, fluency, harm, judged, likelihood),
    *(membership, overlap, refusal, rwku, text, truth, unseen),
)


def _functions(plugin: Plugin) -> dict[str, MetricFunction]:
    """A plugin's metrics that `evaluate_metric` takes."""
    functions = [metric for metric in plugin.metrics if isinstance(metric, MetricFunction)]
    return {metric.description.name: metric for metric in functions if metric.description is not None}


def _descriptions(plugin: Plugin) -> dict[str, MetricDescription]:
    """A plugin's metrics as results have them."""
    descriptions: dict[str, MetricDescription] = {}
    for metric in plugin.metrics:
        description = metric.description if isinstance(metric, MetricFunction) else metric
        if not isinstance(description, MetricDescription):
            raise ValueError(f"expected a MetricDescription, or a MetricFunction with one, got {metric!r}")
        descriptions[description.name] = description
    return descriptions


# Functions by name, as `evaluate_metric` takes them.
METRICS = PluginTable[MetricFunction]("metric", _PACKAGED, _functions)
# What stands in a result, by its key.
METRIC_DESCRIPTIONS = PluginTable[MetricDescription](
    "metric",
    {description.name: description for module in _DESCRIBED for description in module.DESCRIPTIONS},
    _descriptions,
)


def unknown_setting(name: str, setting: str, entry: MetricFunction) -> ValueError:
    """The error about a setting that a metric does not have."""
    return input_error(
        expected=f"settings that {name} has",
        got=f"{setting!r}",
        why="it would change nothing, and the result would be taken for another",
        fix=nearest(setting, [*entry.settings, *METRIC_OPTIONS]),
    )
