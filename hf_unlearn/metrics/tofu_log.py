"""Aggregates of a published TOFU per-sample log, for comparison with figures of other people."""

from collections.abc import Mapping
from typing import Any

from ..errors import input_error
from .likelihood import answer_probability, option_probability
from .result import MetricResult, mean
from .truth import forget_quality, ks_distance, model_utility, truth_ratio, truth_ratios

_FORGET = "eval_log_forget.json"
_NAMES = {
    "eval_real_author_wo_options.json": "Real Authors",
    "eval_real_world_wo_options.json": "Real World",
    "eval_log.json": "Retain",
    _FORGET: "Forget",
}
_UTILITY_SETS = {"Retain": "retain", "Real Authors": "real_authors", "Real World": "world_facts"}
_AMONG_OPTIONS = ("Real Authors", "Real World")
_FIELDS = ("avg_gt_loss", "rougeL_recall", "average_perturb_loss", "avg_paraphrased_loss")

Log = Mapping[str, Mapping[str, Mapping[str, Any]]]


def tofu_aggregates(log: Log, retrained_log: Log | None = None) -> dict[str, MetricResult]:
    """What the reference code's aggregation makes of a log, under its names.

    "ROUGE", "Prob." and "Truth Ratio" of "Real Authors", "Real World", "Retain" and "Forget", and "Model Utility".
    Prob. of Retain and Forget is mean exp(-avg_gt_loss), of the other two that against the perturbed answers. Truth
    Ratio is the forget variant on Forget and the utility variant elsewhere. With the log of a retrained model also
    "Forget Quality" (which "KS Test PVal Forget" repeats) and "KS Test Forget".

    Args:
        log: contents of `eval_log_aggregated.json`: {set: {field: {index: value}}}; losses in mean nats per token.
        retrained_log: the same of the model retrained without the forget rows; only its forget set is read.

    Raises:
        ValueError: a set or field is missing, fields of a set have other rows, or the two logs have forget sets of
            different lengths.

    Paper: TOFU, Maini et al. 2024, https://arxiv.org/abs/2401.06121, section 2.2; code of locuslab/tofu.
    """
    sets = {name: _fields(log, key, "log") for key, name in _NAMES.items()}
    retrained = None if retrained_log is None else _fields(retrained_log, _FORGET, "retrained_log")
    if retrained is not None and len(retrained["avg_gt_loss"]) != len(sets["Forget"]["avg_gt_loss"]):
        raise input_error(
            expected="log and retrained_log over the same forget rows",
            got=f"{len(sets['Forget']['avg_gt_loss'])} and {len(retrained['avg_gt_loss'])} of them",
            why="forget quality depends on the number of rows",
            fix="evaluate both models on the same split and number of rows",
        )
    aggregates: dict[str, MetricResult] = {}
    for name, fields in sets.items():
        among_options = name in _AMONG_OPTIONS
        aggregates[f"ROUGE {name}"] = mean(fields["rougeL_recall"])
        aggregates[f"Prob. {name}"] = (
            option_probability(fields["avg_gt_loss"], fields["average_perturb_loss"])
            if among_options
            else answer_probability(fields["avg_gt_loss"])
        )
        aggregates[f"Truth Ratio {name}"] = truth_ratio(
            _ratios(fields), variant="forget" if name == "Forget" else "utility"
        )
    kinds = {"probability": "Prob.", "rouge": "ROUGE", "truth_ratio": "Truth Ratio"}
    aggregates["Model Utility"] = model_utility(
        {
            f"{rows}_{kind}": aggregates[f"{label} {name}"]
            for name, rows in _UTILITY_SETS.items()
            for kind, label in kinds.items()
        }
    )
    if retrained is not None:
        both = _ratios(sets["Forget"]), _ratios(retrained)
        aggregates["Forget Quality"] = aggregates["KS Test PVal Forget"] = forget_quality(*both)
        aggregates["KS Test Forget"] = ks_distance(*both)
    return aggregates


def _ratios(fields: dict[str, list[Any]]) -> Any:
    return truth_ratios(fields["avg_paraphrased_loss"], fields["average_perturb_loss"])


def _fields(log: Log, key: str, which: str) -> dict[str, list[Any]]:
    """The fields of a set that are read, each as a list in one order of the rows."""
    if key not in log:
        raise _wrong_log(which, f"no set {key!r}", f"pass all of eval_log_aggregated.json: {', '.join(_NAMES)}")
    stored = log[key]
    for field in _FIELDS:
        if field not in stored:
            raise _wrong_log(which, f"no field {field!r} in {key!r}", "pass the log of a run that also scored it")
    order = list(stored[_FIELDS[0]])
    for field in _FIELDS:
        if set(stored[field]) != set(order):
            rows = f"{len(stored[field])} rows of {field!r} beside {len(order)} of {_FIELDS[0]!r} in {key!r}"
            raise _wrong_log(which, f"{rows}, not all with the same index", "pass the log of a run that finished")
    return {field: [stored[field][index] for index in order] for field in _FIELDS}


def _wrong_log(which: str, got: str, fix: str) -> ValueError:
    return input_error(
        expected=f"{which} to be a TOFU per-sample log: {{set: {{field: {{index: value}}}}}}",
        got=got,
        why="an aggregate over fewer rows or fields would not be the published number",
        fix=fix,
    )
