"""The metrics as modules of the `evaluate` library: alone, in batches, combined. Not their values."""

import math

import evaluate
import pytest

from hf_unlearn.metrics import METRICS, evaluate_metric
from hf_unlearn.metrics.likelihood import answer_probability, extraction_strength, option_probability, token_nll
from hf_unlearn.metrics.membership import membership_auc, tpr_at_fpr
from hf_unlearn.metrics.overlap import bleu, common_substring, rouge_recall
from hf_unlearn.metrics.truth import forget_quality, truth_ratio

PARTS = r"Expected (.|\n)*Got: (.|\n)*Why it matters: (.|\n)*What to do: "

ANSWERS = ["the clock is slow on mondays", "I don't know.", "no no no no no", ""]
EXPECTED = ["The clock is slow on Mondays!", "the keeper has the silver key", "no room for a clock", "the tower"]
TEXTS = {"predictions": ANSWERS, "references": EXPECTED}

NAMES = {
    "answer_probability",
    "option_probability",
    "token_nll",
    "n_gram_entropy",
    "perplexity",
    "exact_memorization",
    "extraction_strength",
    "truth_ratio",
    "forget_quality",
    "ks_distance",
    "model_utility",
    "membership_auc",
    "tpr_at_fpr",
    "privleak",
    "relative_difference",
    "refusal_rate",
    "empty_rate",
    "repetition_rate",
    "broken_rate",
    "distinct_n",
    "accuracy",
    "rouge_f1",
    "rouge_recall",
    "common_substring",
    "bleu",
    "harmful_rate",
    "efficacy",
}
# What a metric cannot do without.
SETTINGS = {"truth_ratio": {"variant": "forget"}, "distinct_n": {"n": 2}}

# name -> settings, the columns given to `compute`, the function's own result.
CASES = {
    "rouge_recall": ({}, TEXTS, lambda: rouge_recall(ANSWERS, EXPECTED)),
    "rouge_recall of words": (
        {"kind": "rouge1"},
        {"predictions": ["key silver a b"], "references": ["a b silver key"]},
        lambda: rouge_recall(["key silver a b"], ["a b silver key"], "rouge1"),
    ),
    "common_substring": ({}, TEXTS, lambda: common_substring(ANSWERS, EXPECTED)),
    "bleu": ({}, TEXTS, lambda: bleu(ANSWERS, EXPECTED)),
    "answer_probability": ({}, {"nll_per_token": [0.5, 1.5]}, lambda: answer_probability([0.5, 1.5])),
    "option_probability": (
        {},
        {"nll_per_token": [0.5, 1.5], "options_nll_per_token": [[1.0], [2.0, 3.0]]},
        lambda: option_probability([0.5, 1.5], [[1.0], [2.0, 3.0]]),
    ),
    "token_nll": ({}, {"nll_sum": [2.0, 4.0], "lengths": [1, 4]}, lambda: token_nll([2.0, 4.0], [1, 4])),
    "extraction_strength": (
        {},
        {"correct": [[False, True, True], [True]]},
        lambda: extraction_strength([[False, True, True], [True]]),
    ),
    "truth_ratio": (
        {"variant": "utility"},
        {"ratios": [0.25, 2.0, 1.0]},
        lambda: truth_ratio([0.25, 2.0, 1.0], variant="utility"),
    ),
    "forget_quality": (
        {},
        {"ratios": [1.0, 2.0, 3.0], "retrained_ratios": [2.5, 5.0, 6.0]},
        lambda: forget_quality([1.0, 2.0, 3.0], [2.5, 5.0, 6.0]),
    ),
    "membership_auc": (
        {},
        {"member_scores": [3.0, 1.0, 5.0], "nonmember_scores": [2.0, 0.0, 1.0]},
        lambda: membership_auc([3.0, 1.0, 5.0], [2.0, 0.0, 1.0]),
    ),
    "tpr_at_fpr": (
        {"fpr": 0.5},
        {"member_scores": [3.0, 1.0], "nonmember_scores": [2.0, 0.0]},
        lambda: tpr_at_fpr([3.0, 1.0], [2.0, 0.0], fpr=0.5),
    ),
}


def stored(result, name: str) -> dict:
    """What `compute` gives for a result."""
    given = {name: result.value, f"{name}_n": result.n}
    return given if result.interval is None else given | {f"{name}_low": result.low, f"{name}_high": result.high}


def test_every_metric_is_there():
    assert METRICS.keys() >= NAMES


@pytest.mark.parametrize("name", sorted(NAMES))
def test_every_metric_can_be_made(name):
    metric = evaluate_metric(name, **SETTINGS.get(name, {}))
    assert isinstance(metric, evaluate.Metric) and metric.name == name
    assert metric.description and metric.features


def test_nothing_is_left_without_a_name_here():
    assert METRICS.keys() <= NAMES


@pytest.mark.parametrize("case", CASES)
def test_compute_gives_the_functions_own_numbers(case):
    settings, columns, own = CASES[case]
    name = case.split()[0]
    result = evaluate_metric(name, **settings).compute(**columns)
    assert result[name] > 0 and result == pytest.approx(stored(own(), name), rel=1e-9)


@pytest.mark.parametrize("case", CASES)
def test_batches_are_one(case):
    settings, columns, _ = CASES[case]
    name = case.split()[0]
    metric = evaluate_metric(name, **settings)
    metric.add_batch(**{column: values[:1] for column, values in columns.items()})
    if len(next(iter(columns.values()))) > 1:
        metric.add_batch(**{column: values[1:] for column, values in columns.items()})
    assert metric.compute() == evaluate_metric(name, **settings).compute(**columns)


def test_a_metric_can_be_computed_twice():
    metric = evaluate_metric("accuracy")
    first = metric.compute(predictions=["a", "b"], references=["a", "c"])
    second = metric.compute(predictions=["a"], references=["A."])
    assert (first["accuracy"], first["accuracy_n"]) == (0.5, 2)
    assert (second["accuracy"], second["accuracy_n"]) == (1, 1)


def test_keys_with_and_without_an_interval():
    quality = evaluate_metric("forget_quality").compute(ratios=[1.0, 2.0], retrained_ratios=[1.5, 3.0])
    assert set(quality) == {"forget_quality", "forget_quality_n"}
    refusals = evaluate_metric("refusal_rate").compute(predictions=ANSWERS)
    assert set(refusals) == {f"refusal_rate{ending}" for ending in ("", "_n", "_low", "_high")}
    assert refusals["refusal_rate"] == 0.25 and refusals["refusal_rate_n"] == 4
    assert 0 < refusals["refusal_rate_low"] < 0.25 < refusals["refusal_rate_high"] < 1


def test_rates_of_answers_take_predictions():
    for name, value in (("empty_rate", 0.25), ("repetition_rate", 0.25), ("refusal_rate", 0.25)):
        assert evaluate_metric(name).compute(predictions=ANSWERS)[name] == value
    # Pairs: five, two, four equal ones.
    assert evaluate_metric("distinct_n", n=2).compute(predictions=ANSWERS)["distinct_n"] > 0.5


def test_flags():
    result = evaluate_metric("harmful_rate").compute(flags=[True, False, False, False])
    assert result["harmful_rate"] == 0.25 and result["harmful_rate_n"] == 4


def test_combined():
    names = ("accuracy", "rouge_recall", "refusal_rate")
    result = evaluate.combine([evaluate_metric(name) for name in names]).compute(**TEXTS)
    assert result.keys() == {f"{name}{ending}" for name in names for ending in ("", "_n", "_low", "_high")}
    for name in names:
        columns = {"predictions": ANSWERS} if name == "refusal_rate" else TEXTS
        alone = evaluate_metric(name).compute(**columns)
        assert {key: result[key] for key in alone} == alone and 0 < alone[name] < 1


def test_nan_is_shown():
    result = evaluate_metric("answer_probability").compute(nll_per_token=[0.5, math.nan])
    assert math.isnan(result["answer_probability"]) and result["answer_probability_n"] == 2


def test_unknown_names_and_wrong_columns_are_refused():
    with pytest.raises(ValueError, match=PARTS) as caught:
        evaluate_metric("rouge_recal")
    assert "did you mean 'rouge_recall'" in str(caught.value)
    with pytest.raises(ValueError):
        evaluate_metric("accuracy").compute(predictions=["a", "b"], references=["a"])
    with pytest.raises(ValueError):
        evaluate_metric("answer_probability").compute(predictions=["a"])
