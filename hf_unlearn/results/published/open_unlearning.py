"""OpenUnlearning's evaluation logs: TOFU_EVAL.json and MUSE_EVAL.json, row by row, and the SUMMARY files of means.

Read from the code of locuslab/open-unlearning (src/evals), https://github.com/locuslab/open-unlearning.
"""

from collections.abc import Mapping
from typing import Any

from ...errors import input_error
from ...metrics import MetricResult, forget_quality, ks_distance, model_utility
from ...metrics.truth import UTILITY_COMPONENTS
from .row import PublishedRow, published_row

SOURCE = "OpenUnlearning"
_SETS = {"forget": "forget", "retain": "retain", "ra": "real_authors", "wf": "world_facts"}
_ATTACKS = {
    "mia_loss": "loss_auc",
    "mia_zlib": "zlib_auc",
    "mia_min_k": "min_k_auc",
    "mia_min_k_plus_plus": "min_k_plus_plus_auc",
    "mia_reference": "reference_auc",
    "mia_gradnorm": "gradient_norm_auc",
}
_TOFU = {
    **{f"{short}_Q_A_ROUGE": f"{name}_rouge" for short, name in _SETS.items()},
    **{f"{short}_Truth_Ratio": f"{name}_truth_ratio" for short, name in _SETS.items()},
    "forget_truth_ratio": "forget_truth_ratio",
    "forget_Q_A_Prob": "forget_probability",
    "retain_Q_A_Prob": "retain_probability",
    # Without "_normalised" these are probabilities of the answer alone, not among the options.
    "ra_Q_A_Prob_normalised": "real_authors_probability",
    "wf_Q_A_Prob_normalised": "world_facts_probability",
    "extraction_strength": "forget_extraction_strength",
    "retain_extraction_strength": "retain_extraction_strength",
    "exact_memorization": "forget_exact_memorization",
    "model_utility": "model_utility",
    "forget_quality": "forget_quality",
    "privleak": "min_k_privleak",
    **_ATTACKS,
}
_MUSE = {
    "forget_verbmem_ROUGE": "forget_verbmem",
    "forget_knowmem_ROUGE": "forget_knowmem",
    "retain_knowmem_ROUGE": "retain_knowmem",
    "extraction_strength": "verbmem_extraction_strength",
    "exact_memorization": "verbmem_exact_memorization",
    "privleak": "min_k_privleak",
    **_ATTACKS,
}
NAMES = {"tofu": _TOFU, "muse": _MUSE}
_RATIOS = ("forget_truth_ratio", "forget_Truth_Ratio")  # the rows' ratios, of which forget quality is a test

# What keeps a figure from being that of the suite, by this package's name of it.
_FAULTS = {
    "extraction_strength": "scores a row with a wrong last token as 1 / n where 0 is right, and an empty one as 0.",
    "forget_truth_ratio": "adds 1e-10 to the probability of the right answer: where it is below that (23 nats a"
    " token), the ratio goes to 0. Forget quality is a test of these ratios.",
    "min_k_privleak": "is set against an AUC of 0.5 where no log of a retrained model was given; it does not say.",
    "forget_verbmem": "holds a continuation against a reference that may have fewer tokens, words stemmed, of a to z.",
}
_DISAGREES = 5e-4  # four digits


def open_unlearning_row(
    content: Mapping[str, Any], name: str, suite: str, digest: str, retrained: Mapping[str, Any] | None = None
) -> PublishedRow:
    """The figures of a log, with what is said of them.

    Args:
        content: of the JSON file: {metric: {"agg_value": ..., "value_by_index": ...}}, or {metric: value}.
        name: of the row.
        suite: "tofu" or "muse".
        digest: of the file.
        retrained: the same of the retrained model, row by row: gives TOFU's forget quality and KS distance.

    Raises:
        ValueError: no metric that is known, or a log of the retrained model without truth ratios by row.
    """
    names, values, others = NAMES[suite], {}, []
    for key, entry in content.items():
        value = _aggregate(entry)
        if value is None:
            continue
        if key in names:
            values[names[key]] = value
        else:
            others.append(key)
    if not values:
        raise _no_metric(suite, content)
    if retrained is not None and suite == "tofu":
        values |= {key: result.value for key, result in _against(content, retrained).items()}
    notes = [f"{_first(values, key)} {text}" for key, text in _FAULTS.items() if _first(values, key)]
    if others:
        notes.append(f"Not read, having no counterpart here: {', '.join(sorted(others))}.")
    return published_row(SOURCE, name, suite, values, digest, [*notes, *_utility_notes(values)])


def _aggregate(entry: Any) -> float | None:
    """A metric's value; None where it has none, as forget quality without a log of the retrained model."""
    value = entry.get("agg_value") if isinstance(entry, Mapping) else entry
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _first(values: Mapping[str, float], key: str) -> str | None:
    return next((name for name in values if name == key or name.endswith(f"_{key}")), None)


def _utility_notes(values: Mapping[str, float]) -> list[str]:
    """Whether model utility is the harmonic mean of the nine figures beside it, where all are there."""
    if "model_utility" not in values or not all(name in values for name in UTILITY_COMPONENTS):
        return []
    expected = model_utility({name: values[name] for name in UTILITY_COMPONENTS}).value
    if abs(expected - values["model_utility"]) <= _DISAGREES:
        return []
    told = values["model_utility"]
    return [f"model_utility is {told:.4f}, but the harmonic mean of its nine parts in this log is {expected:.4f}."]


def _against(content: Mapping[str, Any], retrained: Mapping[str, Any]) -> dict[str, MetricResult]:
    both = _row_ratios(content), _row_ratios(retrained)
    if len(both[0]) != len(both[1]):
        raise input_error(
            expected="both logs over the same forget rows",
            got=f"{len(both[0])} and {len(both[1])} of them",
            why="forget quality depends on the number of rows",
            fix="pass the log of the model retrained without the same split",
        )
    return {"forget_quality": forget_quality(*both), "ks_distance": ks_distance(*both)}


def _row_ratios(content: Mapping[str, Any]) -> list[float]:
    for key in _RATIOS:
        entry = content.get(key)
        if isinstance(entry, Mapping) and isinstance(entry.get("value_by_index"), Mapping):
            scores = [row.get("score") for row in entry["value_by_index"].values()]
            if scores and all(isinstance(score, int | float) for score in scores):
                return scores
    raise input_error(
        expected="truth ratios of single forget rows in the logs of both models",
        got="a log without them, or with rows that have none",
        why="forget quality is a test between the two models' ratios",
        fix="pass TOFU_EVAL.json of both; TOFU_SUMMARY.json has means alone",
    )


def _no_metric(suite: str, content: Mapping[str, Any]) -> ValueError:
    return input_error(
        expected=f"an evaluation log of OpenUnlearning with metrics of {suite}",
        got=f"{len(content)} entries, none of them one" if content else "no entry",
        why="there is nothing to put beside other figures",
        fix=f"pass {suite.upper()}_EVAL.json or {suite.upper()}_SUMMARY.json of a finished evaluation",
    )
