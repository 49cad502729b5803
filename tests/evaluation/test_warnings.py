"""What a suite refuses or warns of: sets that cannot be compared, rows that stand out, judges and logits to doubt."""

import math
from typing import Any

import numpy as np
import pytest

from hf_unlearn.evaluation import EvaluationResult, custom, evaluate
from hf_unlearn.evaluation.evidence import AnsweredRows, ScoredRows
from hf_unlearn.evaluation.judges.judge import doubtful
from hf_unlearn.evaluation.suites.metric_groups import gibberish, likelihood_metrics, membership_warnings
from hf_unlearn.lab import Lab, load_lab
from hf_unlearn.metrics import MetricResult


@pytest.fixture(scope="module")
def lab() -> Lab:
    return load_lab()


def rows_of(lab: Lab, name: str) -> list[dict[str, str]]:
    return lab.datasets[name].select(range(6)).to_list()


def measured(lab: Lab, suite: Any) -> EvaluationResult:
    return evaluate(lab.load_oracle(), lab.load_tokenizer(), suite)


def test_asked_for_attacks_need_holdout_rows_and_those_must_be_unseen(lab):
    pair = {name: rows_of(lab, name)[:3] for name in ("forget", "retain")}
    with pytest.raises(ValueError, match="holdout"):
        custom(**pair, attacks=["min_k"])
    with pytest.raises(ValueError, match="1 that are forget rows"):
        seen = [rows_of(lab, "holdout")[0], pair["forget"][1]]
        measured(lab, custom(**pair, holdout=seen, max_new_tokens=9))


@pytest.mark.parametrize("auc, warned", [(0.9, False), (0.5, False), (0.05, True)])
def test_forget_rows_that_stand_out_as_unlikely_are_warned_of(auc, warned):
    found = {"loss_auc": MetricResult(auc, 40, auc - 0.04, auc + 0.04, "bootstrap")}
    assert ("stand out" in " ".join(membership_warnings(found, None, ["loss"]))) is warned
    # A model that was retrained finds these rows as unlikely: then nothing stands out.
    retrained = EvaluationResult("custom", {"loss_auc": MetricResult(auc, 40, auc - 0.04, auc + 0.04, "bootstrap")})
    assert membership_warnings(found, retrained, ["loss"]) == []


@pytest.mark.parametrize("useless", [0.0, 1.0, float("nan")])
def test_an_oracle_that_nothing_can_be_divided_by_costs_one_figure_and_says_so(useless):
    found = {"loss_auc": MetricResult(0.6, 40, 0.5, 0.7, "bootstrap")}
    oracle = EvaluationResult("custom", {"loss_auc": MetricResult(useless, 40)})
    left_out = [each for each in membership_warnings(found, oracle, ["loss"]) if "is left out" in each]
    assert len(left_out) == (2 if useless != useless else 1)


def test_a_judge_that_does_no_better_than_chance_is_said_to():
    chance = {"auc": MetricResult(0.53, 90, 0.44, 0.61, "bootstrap")}
    assert "no better than chance" in doubtful(chance)
    assert doubtful({"auc": MetricResult(0.8, 90, 0.7, 0.9, "bootstrap")}) is None and doubtful(None) is None


def test_a_model_that_has_diverged_has_not_forgotten():
    """The likeliest token of NaN logits is some token, and NaN is not above log V: neither may pass for a figure."""
    rows = ScoredRows([np.array([[math.nan, math.nan], [0.0, 0.0]]), np.array([[-1.0], [1.0]])])
    found = likelihood_metrics("forget", rows)
    assert all(math.isnan(found[f"forget_{name}"].value) for name in ("nll", "probability"))
    assert all(math.isnan(found[f"forget_{name}"].value) for name in ("exact_memorization", "extraction_strength"))
    answered = AnsweredRows(["a", "b"], ["a", "b"], rows)
    assert gibberish(answered, 261) == [True, False]


@pytest.mark.parametrize("rows", [["the word is zorvex"], {"train": [{"prompt": "zorvex", "completion": "b"}]}])
def test_sets_that_are_no_rows_are_refused_without_a_word_of_theirs(rows):
    with pytest.raises(ValueError, match="What to do") as error:
        custom(forget=rows, retain=[{"prompt": "a", "completion": "b"}])
    assert "zorvex" not in str(error.value) and "'z', 'o'" not in str(error.value)


def test_texts_without_a_start_cannot_be_answered(lab):
    texts = [{"text": row["completion"]} for row in rows_of(lab, "forget")[:2]]
    with pytest.raises(ValueError, match="2 without one"):
        measured(lab, custom(forget=texts, retain=rows_of(lab, "retain")[:2], max_new_tokens=9))
