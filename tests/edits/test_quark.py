"""Quark: quantiles by hand, marks and prompts, and a planted behaviour that falls without a mark being given."""

import numpy as np
import pytest

from fixtures.edited import edited
from fixtures.models import tiny_tokenizer
from fixtures.planted import planted_model, planted_rows
from fixtures.tokenizer import BOS
from hf_unlearn.edits.quark import Pool, Quark, quantile_bins, quantile_marks
from hf_unlearn.edits.rewards import Rewards, RewardWeights
from hf_unlearn.evaluation.questioner import Questioner


@pytest.mark.parametrize(
    ("values", "bins"),
    [
        ([5, 1, 4, 2, 3], [4, 0, 3, 1, 2]),
        ([0, 0, 0, 1], [1, 1, 1, 4]),  # K times the middle of the lowest is 5 x 1.5 / 4, of the highest 5 x 3.5 / 4
        ([0, 1, 1, 1], [1, 4, 4, 4]),  # 5 x 2.5 / 4 is below 4, so all move up by one
        ([7, 7, 7], [4, 4, 4]),
        ([], []),
    ],
)
def test_quantiles(values, bins):
    assert quantile_bins(np.array(values, dtype=np.float64), 5).tolist() == bins


def test_marks_stand_after_bos_and_the_best_is_learnt_without():
    tokenizer, sets = tiny_tokenizer(), planted_rows()
    forget, retain = sets["forget"][:2], sets["retain"][:2]
    rewards = Rewards(Questioner(tokenizer), planted_model(), forget, retain, RewardWeights())
    marks = quantile_marks(tokenizer, 3)
    assert len({tuple(mark) for mark in marks}) == 3 and BOS not in marks[0]
    pool = Pool(rewards, marks, BOS)
    prompt = rewards.prompts[0]
    assert prompt[0] == BOS and pool.marked(0, best=False) == prompt
    assert pool.marked(0, best=True) == [BOS, *marks[2], *prompt[1:]]
    # Row 0: its own answer, and another of as many letters. Row 2 is to be kept: all its answers are worth the same.
    own, kept = forget[0]["input_ids"][len(prompt) :], retain[0]["input_ids"][len(rewards.prompts[2]) :]
    pool.add([0, 0, 2, 2], [own, kept, kept, kept])
    assert pool.values[0] < pool.values[1] and pool.values[2] == pool.values[3]
    after_mark, alone = pool.rows()
    assert [row["input_ids"] for row in alone] == [prompt + kept]
    assert [row["input_ids"][: row["answer_start"]] for row in after_mark] == [
        [BOS, *marks[0], *prompt[1:]],
        [BOS, *marks[2], *prompt[1:]],
        *[[BOS, *marks[2], *rewards.prompts[2][1:]]] * 2,
    ]
    assert alone[0]["labels"] == [-100] * len(prompt) + kept


def test_a_planted_behaviour_falls_and_retain_rows_stay():
    report = edited(Quark(rounds=2, steps=20, rate=1e-3, prompts=24, rollouts=4, temperature=1.5), batch_size=96)
    assert report.before.forget < 0.03 and report.after.forget > 0.2
    assert report.after.retain < report.before.retain + 0.05
    start, end = report.tried
    assert start.setting == {"round": 0} and end.setting["round"] == 2 and end.setting["overlap"] < 0.9


def test_the_seed_decides():
    short = Quark(rounds=2, steps=1, prompts=2, rollouts=2)
    first, again, other = (edited(short, seed=seed).weights_after for seed in (1, 1, 2))
    assert first == again != other


def test_refuses_what_it_cannot_be_done_with():
    for argument, value in (("batch", 1), ("quantiles", 1), ("rounds", 0), ("rate", -1.0)):
        with pytest.raises(ValueError, match=f"{argument} of quark must be"):
            Quark(**{argument: value})
    with pytest.raises(ValueError, match="positions, and it has 64"):
        edited(Quark(max_new_tokens=60))
