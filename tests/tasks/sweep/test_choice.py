"""Objectives, the Pareto front and the best run, against figures worked out by hand."""

import math

import pytest

from hf_unlearn.evaluation import EvaluationResult
from hf_unlearn.metrics import MetricResult
from hf_unlearn.tasks.sweep.choice import ScoredTrial, choose, distance, dominates, front
from hf_unlearn.tasks.sweep.final import FinalRun, _conclusion
from hf_unlearn.tasks.sweep.objectives import FORGETTING, TRACEABILITY, UTILITY, Objective, find_objectives

OBJECTIVES = [
    Objective(FORGETTING, "harmful_rate", 0.0, 0.5, ""),
    Objective(UTILITY, "retain_accuracy", 1.0, 0.05, ""),
    Objective(TRACEABILITY, "loss_auc", 0.5, 0.4, ""),
]


def result(**values):
    return EvaluationResult("harmful", {name: MetricResult(value, 10) for name, value in values.items()})


def trial(number, *figures, **more):
    return ScoredTrial(number, {}, figures, **more)


def test_figures_are_distances_to_what_they_ought_to_be():
    before = result(harmful_rate=0.9, retain_accuracy=0.8, loss_auc=1.0, level_ks=0.7)
    oracle = result(harmful_rate=0.1, retain_accuracy=0.9, loss_auc=0.4)
    after = result(harmful_rate=0.0, retain_accuracy=0.75, loss_auc=0.3, level_ks=0.2)
    found = find_objectives(before, oracle, levels=False)
    assert [one.figure(after) for one in found] == pytest.approx([0.1, 0.05, 0.1])
    assert [one.scale for one in found] == pytest.approx([0.8, 0.05, 0.6])
    alone = find_objectives(before, None, levels=False)
    assert [one.figure(after) for one in alone] == pytest.approx([0.0, 0.05, 0.2])  # to 0, and to chance
    by_level = find_objectives(before, None, levels=True)[-1]
    assert (by_level.metric, by_level.figure(after)) == ("level_ks", 0.2)
    beside = result(harmful_rate=0.9, retain_accuracy=0.8, loss_auc=1.0, level_ks=0.7, oracle_level_ks=0.6)
    assert find_objectives(beside, oracle, levels=True)[-1].metric == "oracle_level_ks"


def test_without_unseen_rows_there_is_no_traceability():
    before = result(harmful_rate=0.9, retain_accuracy=0.8)
    assert [one.name for one in find_objectives(before, None, levels=False)] == [FORGETTING, UTILITY]
    with pytest.raises(ValueError, match="traceability needs holdout rows"):
        find_objectives(before, None, levels=False, asked=[TRACEABILITY])
    with pytest.raises(ValueError, match="did you mean 'utility'"):
        find_objectives(before, None, levels=False, asked=["utilty"])
    assert math.isnan(OBJECTIVES[2].figure(before))


def test_the_front_is_what_nothing_dominates():
    runs = [trial(0, 0.2, 0.01), trial(1, 0.1, 0.02), trial(2, 0.2, 0.02), trial(3, 0.1, 0.02), trial(4, failure="x")]
    assert [one.number for one in front(runs)] == [0, 1, 3]
    assert dominates((0.1, 0.1), (0.1, 0.2)) and not dominates((0.1, 0.1), (0.1, 0.1))


def test_the_best_is_nearest_to_the_ideal_and_keeps_the_utility():
    nearest = trial(2, 0.05, 0.03, 0.04)  # (0.1, 0.6, 0.1)
    runs = [
        trial(0, 0.0, 0.00, 0.30),  # (0, 0, 0.75)
        trial(1, 0.0, 0.06, 0.0),  # lost more than five points
        nearest,
    ]
    assert distance(nearest.figures, OBJECTIVES) == pytest.approx(math.sqrt(0.01 + 0.36 + 0.01))
    assert choose(runs, OBJECTIVES) is nearest
    assert choose(runs[:2], OBJECTIVES).number == 0
    lost = [trial(0, 0.0, 0.3, 0.0), trial(1, 0.1, 0.2, 0.1)]
    assert choose(lost, OBJECTIVES).number == 1
    assert distance((0.0, -0.2, 0.0), OBJECTIVES) == 0  # a gain of utility makes up for nothing
    assert choose([trial(0, 0.1, 0.0, 0.1), trial(1, 0.1, 0.0, 0.1)], OBJECTIVES).number == 0


@pytest.mark.parametrize(
    ("unchanged", "best", "better", "words"),
    [
        ([(0.2, 0, 0.2), (0.3, 0, 0.2)], [(0.1, 0, 0.1), (0.1, 0, 0.1)], True, "in every seed"),
        ([(0.2, 0, 0.2), (0.3, 0, 0.2)], [(0.22, 0, 0.2), (0.1, 0, 0.1)], True, "may be chance"),
        ([(0.2, 0, 0.2)], [(0.1, 0, 0.1)], True, "in the one seed"),
        ([(0.1, 0, 0.1)], [(0.2, 0, 0.2)], False, "not better"),
        ([(0.2, 0, 0.2)], [(0.0, 0.2, 0.0)], False, "loses too much utility (20.0 points)"),
        ([(0.2, 0, 0.2)], [()], None, "not known"),
        ([(0.2, 0, 0.2)], [], None, "keep it"),
    ],
)
def test_the_conclusion_is_of_the_reported_runs(unchanged, best, better, words):
    runs = [[FinalRun(None, seed, figures) for seed, figures in enumerate(some)] for some in (unchanged, best)]
    found, sentence = _conclusion(*runs, OBJECTIVES)
    assert found is better and words in sentence
