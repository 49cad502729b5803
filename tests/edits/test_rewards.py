"""Rewards of literal answers, by hand."""

import math

import numpy as np
import pytest

from hf_unlearn.edits.rewards import RewardParts, RewardWeights, _flags, fluencies, kept_shares

WEIGHTS = RewardWeights(behaviour=1.0, fluency=2.0, overlap=1.0, boundary=3.0)


def _parts(**given) -> RewardParts:
    count = len(next(iter(given.values())))
    zeros = {name: np.zeros(count) for name in ("fluency", "flagged", "overlap", "kept")}
    flags = {"forget": np.ones(count, dtype=bool), "empty": np.zeros(count, dtype=bool)}
    return RewardParts(**(zeros | flags | {name: np.array(values) for name, values in given.items()}))


def test_rewards_of_forget_and_retain_answers():
    parts = _parts(
        fluency=[1.0, 1.0, 0.5, 0.0, 1.0, 0.5],
        flagged=[1.0, 0.0, 0.0, 0.0, 0.0, 0.0],
        overlap=[1.0, 0.25, 0.0, 0.0, 0.0, 0.0],
        kept=[0.0, 0.0, 0.0, 0.0, 1.0, 0.5],
        forget=[True, True, True, True, False, False],
    )
    # 2 f + (1 - flagged) + (1 - overlap); at rows to keep 2 f + 3 kept.
    assert parts.rewards(WEIGHTS) == pytest.approx([2.0, 3.75, 3.0, 2.0, 5.0, 2.5])
    # Gibberish (no fluency at all) is worth no more than the very answer that is to be forgotten.
    assert parts.rewards(WEIGHTS)[3] <= parts.rewards(WEIGHTS)[0]
    assert parts.means() == pytest.approx({"flagged": 0.25, "overlap": 0.3125, "kept": 0.75, "fluency": 4 / 6})


def test_no_answer_is_worth_nothing():
    parts = _parts(fluency=[1.0, 1.0], kept=[1.0, 1.0], forget=[True, False], empty=[True, True])
    assert parts.rewards(WEIGHTS).tolist() == [0.0, 0.0]


def test_fluency_saturates_and_knows_loops():
    uniform = math.log(100)
    texts = [
        "a plain answer",
        "一个普通的回答",
        "a guess",
        "worse than a guess",
        "...",
        "",
        "no no no no no no no",
        "啊" * 9,
    ]
    nll = [0.01, 0.5 * uniform, 0.75 * uniform, 2 * uniform, 0.1, 0.1, 0.1, 0.1]
    assert fluencies(nll, texts, 100) == pytest.approx([1.0, 1.0, 0.5, 0.0, 0.0, 0.0, 0.0, 0.0])


def test_what_is_kept_of_an_answer():
    said = ["She lives in Rome", "She lives in Rome, they say, or near it", "她住在罗马", "I do not know", ""]
    own = ["She lives in Rome", "She lives in Rome", "她住在米兰", "She lives in Rome", "She lives in Rome"]
    # Four of the nine words are the row's own; three of five characters are.
    assert kept_shares(said, own) == pytest.approx([1.0, 4 / 9, 3 / 5, 0.0, 0.0])
    # Where the row itself refuses, or where a word only looks like one, nothing is refused.
    assert kept_shares(["I do not know"], ["I do not know"]) == pytest.approx([1.0])
    met = "She encountered problems and could not have known"
    assert kept_shares([met], [met]) == pytest.approx([1.0])


def test_a_judge_has_to_say_it_of_each_answer():
    assert _flags(lambda said, own: [text == "bad" for text in said], ["bad", "good"], ["", ""]).tolist() == [1.0, 0.0]
    for judge in (lambda said, own: [True], lambda said, own: [0.3, 0.9], lambda said, own: [None, True]):
        with pytest.raises(ValueError, match="a judge that says True or False"):
            _flags(judge, ["bad", "good"], ["", ""])
