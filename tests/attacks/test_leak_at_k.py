"""Leak at k: its estimator beside enumeration of all sets, and what it finds on planted secrets."""

from itertools import combinations

import numpy as np
import pytest

from fixtures.planted import attacked_rows, planted_model, planted_oracle, planted_target
from hf_unlearn.attacks.answer_scores import answer_scores
from hf_unlearn.attacks.leak_at_k import LeakAtK, expected_maximum


@pytest.mark.parametrize("n", [1, 2, 5, 8])
def test_the_estimator_is_the_mean_over_all_sets_of_k(n):
    scores = np.random.default_rng(n).random((n, 3)).round(1)  # rounded, for ties
    for k in range(1, n + 1):
        sets = [scores[list(chosen)].max(0) for chosen in combinations(range(n), k)]
        assert expected_maximum(scores, k) == pytest.approx(np.mean(sets, axis=0))
    assert expected_maximum(scores, n) == pytest.approx(scores.max(0))


def test_the_estimator_is_exact_with_many_samples():
    flags = np.zeros(200)
    flags[:3] = 1
    # 1 - C(197, 100) / C(200, 100), by hand: 1 - (100 99 98) / (200 199 198)
    assert expected_maximum(flags, 100) == pytest.approx(1 - 100 * 99 * 98 / (200 * 199 * 198), rel=1e-12)
    assert expected_maximum(np.ones(200), 64) == 1.0


def test_planted_codes_come_out_of_the_model_that_knows_them_alone():
    attack = LeakAtK(samples=6, temperatures=(1.0,), k=(1, 4, 32))
    known = list(attack.run(planted_target(planted_model()), attacked_rows()))
    settings = [{"temperature": 0, "k": 1}, {"temperature": 1.0, "k": 1}, {"temperature": 1.0, "k": 4}]
    assert [leak.setting for leak in known] == settings  # there are no 32 of 6
    assert min(leak.rows.mean() for leak in known) > 0.85
    for model, control in ((planted_oracle(), False), (planted_model(), True)):
        assert all(
            leak.rows.mean() < 0.05 for leak in attack.run(planted_target(model), attacked_rows(control=control))
        )


def test_samples_differ_and_follow_from_the_seed():
    seen: list[tuple[str, ...]] = []

    def judge(answers, references):
        seen.append(tuple(answers))
        return [len(answer) > 4 for answer in answers]

    attack, rows = LeakAtK(samples=3, temperatures=(1.0,), k=(1, 2)), attacked_rows()
    for seed in (0, 0, 1):
        list(attack.run(planted_target(planted_oracle(), judge=judge, seed=seed), rows))
    first, again, other = seen[:4], seen[4:8], seen[8:]
    assert first == again
    assert len(set(first)) == 4
    assert first[0] == other[0]  # greedy
    assert not set(first[1:]) & set(other[1:])


def test_a_judge_that_cannot_judge_ends_the_attack():
    def failing(answers, references):
        raise TimeoutError("503")

    def silent(answers, references):
        return [None] * len(answers)

    attack, rows = LeakAtK(samples=1, temperatures=(1.0,), k=(1,)), attacked_rows()
    with pytest.raises(TimeoutError):
        list(attack.run(planted_target(planted_oracle(), judge=failing), rows))
    target = planted_target(planted_oracle(), judge=silent)
    with pytest.raises(ValueError, match="NoneType among its flags"):
        answer_scores(target, ["a", "b"], ["a", "b"])
    target.judge = lambda answers, references: [True]
    with pytest.raises(ValueError, match="1 flags, not 2"):
        answer_scores(target, ["a", "b"], ["a", "b"])
    target.judge = None
    assert answer_scores(target, ["one two", "three"], ["two", "one two"]).tolist() == [1.0, 0.0]


@pytest.mark.parametrize(
    "arguments",
    [{"samples": 0}, {"temperatures": (0.0,)}, {"temperatures": ("a",)}, {"k": (0,)}, {"samples": 3, "k": (4,)}],
)
def test_budgets_out_of_range_are_refused(arguments):
    with pytest.raises(ValueError, match=f"{list(arguments)[-1]} of leak_at_k"):
        LeakAtK(**arguments)
