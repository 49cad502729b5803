"""GRPO through TRL: exact prompts, advantages by hand, nothing learnt where all answers are worth the same."""

import copy
import os

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState

from fixtures.edited import edited
from fixtures.planted import planted_model, planted_rows
from hf_unlearn.edits import grpo_trainer
from hf_unlearn.edits.grpo import GRPO
from hf_unlearn.edits.rewards import Rewards
from hf_unlearn.evaluation import RuleJudge
from hf_unlearn.model.fingerprints import hash_weights
from hf_unlearn.training.hooks.run_description import describe_component

SHORT = {"prompts": 2, "neighbours": 2, "rollouts": 4, "temperature": 1.5}


def test_a_planted_behaviour_falls_and_retain_rows_stay(monkeypatch):
    trained, trainers = [], []

    class Watched(grpo_trainer.RetainingGRPOTrainer):
        def compute_loss(self, model, inputs, *rest, **named):
            trained.append({name: inputs[name].clone() for name in ("prompt_ids", "prompt_mask", "advantages")})
            trainers.append(self)
            return super().compute_loss(model, inputs, *rest, **named)

    monkeypatch.setattr(grpo_trainer, "RetainingGRPOTrainer", Watched)
    model, accelerator = planted_model(), Accelerator(cpu=True)
    process = _process()
    settings = copy.deepcopy((model.config.to_dict(), model.generation_config.to_dict()))
    report = edited(GRPO(steps=12, rate=1e-3, **SHORT), model, batch_size=8, accelerator=accelerator)
    start, end = report.tried
    assert start.setting == {"step": 0} and end.setting["step"] == 12
    assert end.setting["overlap"] < 0.6 and end.setting["flagged"] == end.setting["overlap"]  # no judge
    assert report.after.retain < report.before.retain + 0.05
    # The policy is trained on the very ids of the rows' prompts, BOS once.
    sets = planted_rows()
    prompts = {tuple(row["input_ids"][: row["answer_start"]]) for row in (*sets["forget"], *sets["retain"])}
    for step in trained:
        for ids, mask in zip(step["prompt_ids"], step["prompt_mask"], strict=True):
            assert tuple(ids[mask.bool()].tolist()) in prompts
    # The last step's advantages, by hand: (r - mean) / (std + 1e-4) among the four answers of a prompt.
    rewards = np.array(trainers[-1]._logs["rewards"]["reward"]).reshape(-1, 4)
    by_hand = (rewards - rewards.mean(1, keepdims=True)) / (rewards.std(1, ddof=1, keepdims=True) + 1e-4)
    assert np.array(trainers[-1]._logs["advantages"]) == pytest.approx(by_hand.reshape(-1), abs=1e-4)
    last = torch.cat([part["advantages"] for part in trained[-2:]])  # a step of 16 answers in two parts of 8
    assert sorted(last.tolist()) == pytest.approx(sorted(by_hand.reshape(-1)), abs=1e-4)
    # What a Trainer leaves behind is taken back.
    assert settings == (model.config.to_dict(), model.generation_config.to_dict())
    assert "forward" not in model.__dict__ and not model.training and not getattr(model, "model_tags", None)
    assert _process() == process


def test_equal_rewards_change_nothing_and_the_seed_decides(monkeypatch):
    plain = {"steps": 2, "retain_weight": 0.0, "beta": 0.0, **SHORT}
    monkeypatch.setattr(Rewards, "__call__", lambda self, places, answers: self.log.append({}) or np.ones(len(places)))
    report = edited(GRPO(**plain))
    assert report.weights_after == report.weights_before
    # The KL of a model with itself has no slope either; its value has one as soon as they differ.
    assert edited(GRPO(**plain | {"beta": 1.0})).weights_after == report.weights_before
    assert edited(GRPO(**plain | {"retain_weight": 1.0})).weights_after != report.weights_before
    monkeypatch.undo()
    first, again, other = (edited(GRPO(**plain), seed=seed).weights_after for seed in (1, 1, 2))
    assert first == again != other


def test_a_step_is_the_same_in_parts_of_any_size():
    whole, parts = (edited(GRPO(steps=2, rate=1e-3, **SHORT), batch_size=size).after for size in (16, 4))
    assert parts.forget == pytest.approx(whole.forget, rel=1e-3) and whole.forget > 0.03
    assert parts.retain == pytest.approx(whole.retain, rel=1e-3)


def test_sixteen_bits_are_rounded_once():
    model = planted_model().to(torch.bfloat16)
    report = edited(GRPO(steps=1, rate=1e-2, **SHORT), model)
    assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}
    assert report.weights_after == hash_weights(model) != report.weights_before


def test_says_where_the_judge_of_the_reward_reports_too():
    judge, other = RuleJudge("the rule", str.isdigit), RuleJudge("unitary/toxic-bert (threshold 0.5)", str.isdigit)
    for edit, reports, same in (
        (GRPO(), judge, "(the rule)"),
        (GRPO(), None, "(overlap with the row's own answer)"),
        (GRPO(judge="overlap"), None, "(overlap with the row's own answer)"),
        (GRPO(judge="unitary/toxic-bert"), other, "(unitary/toxic-bert (threshold 0.5))"),
    ):
        (warning,) = edit.warnings(_Data(reports))
        assert same in warning
    assert (
        GRPO(judge="overlap").warnings(_Data(judge)) == GRPO(judge="unitary/toxic-bert").warnings(_Data(judge)) == []
    )


def test_no_path_of_a_judge_is_reported(tmp_path):
    (tmp_path / "judge").mkdir()
    for judge, told in ((str(tmp_path / "judge"), "judge"), ("owner/judge", "owner/judge"), ("overlap", "overlap")):
        assert describe_component(GRPO(judge=judge)).arguments["judge"] == told


def _process():
    """What a Trainer sets for the whole process."""
    settings = {name: value for name, value in os.environ.items() if name.startswith("ACCELERATE_")}
    return settings, dict(AcceleratorState._shared_state), dict(PartialState._shared_state)


class _Data:
    def __init__(self, judge):
        self.judge = judge


@pytest.mark.parametrize(
    ("argument", "value"),
    [("rollouts", 1), ("temperature", 0.0), ("fluency", -1.0), ("max_new_tokens", 0), ("steps", 0), ("beta", -0.1)],
)
def test_refuses_arguments(argument, value):
    with pytest.raises(ValueError, match=f"{argument} of grpo must be"):
        GRPO(**{argument: value})


def test_refuses_rows_without_a_prompt():
    data = {"forget": [{"text": "all of it"}], "retain": planted_rows()["retain"]}
    with pytest.raises(ValueError, match="1 rows have no prompt to answer"):
        edited(GRPO(), data=data)
