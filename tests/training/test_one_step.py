"""A training step against naive loops: the weights move by exactly the formula's gradient. Not a test of trajectories.

The trainer's step runs padded batches, accumulation, slices by role and hand-written gradients; the oracle runs one
row at a time through autograd. Most models are in fp64, where the two agree to seven digits and more, and any other
normalisation, mask or reference shows. Adapters and the row bound have files of their own.
"""

import copy

import pytest
import torch
from torch import Tensor, nn

from fixtures.models import make_trainer, perturbed, step_logs, tiny_model, weights
from fixtures.one_step import (
    ACCUMULATION,
    ARGUMENTS,
    BATCH,
    FORGET_ORACLES,
    LR,
    PULL,
    RETAIN_ORACLES,
    TESTED_ALONE,
    StepRows,
    assert_same_change,
    check_step,
    rows_of_step,
    run_and_expect,
)
from hf_unlearn.losses import FORGET_LOSSES, RETAIN_LOSSES
from oracles import hidden, naive


def test_every_loss_has_an_oracle_and_arguments_that_are_no_defaults():
    assert FORGET_ORACLES.keys() == FORGET_LOSSES.keys() - TESTED_ALONE
    assert RETAIN_ORACLES.keys() == RETAIN_LOSSES.keys() - TESTED_ALONE
    for name, arguments in ARGUMENTS.items():
        defaults = (FORGET_LOSSES | RETAIN_LOSSES)[name]()
        assert all(getattr(defaults, argument) != value for argument, value in arguments.items())


@pytest.mark.parametrize(("kind", "retain"), [("llama", "nll"), ("llama", "none"), ("opt", "kl")])
@pytest.mark.parametrize("forget", list(FORGET_ORACLES))
def test_a_step_of_each_forget_loss_is_its_formulas_gradient(tmp_path, kind, forget, retain):
    check_step(tmp_path, kind, {forget: PULL.get(forget, 1.0)}, {} if retain == "none" else {retain: 1.0})


@pytest.mark.parametrize("kind", ["llama", "opt"])
@pytest.mark.parametrize("forget", ["undial", "rmu"])
@pytest.mark.parametrize("retain", list(RETAIN_ORACLES))
def test_a_step_of_each_retain_loss_is_its_formulas_gradient(tmp_path, kind, forget, retain):
    check_step(tmp_path, kind, {forget: 1.0}, {retain: 1.0})


@pytest.mark.parametrize("kind", ["llama", "opt"])
@pytest.mark.parametrize("retain", ["none", "hidden"])
def test_losses_of_hidden_states_leave_what_lies_above_the_layer_alone(tmp_path, kind, retain):
    trainer, expected = check_step(tmp_path, kind, {"rmu": 1.0}, {} if retain == "none" else {retain: 1.0})
    untouched = {name for name, change in expected.items() if not change.any()}
    # OPT's head is tied to its embeddings, which lie below.
    above = ("layers.1.", "final_layer_norm.") if kind == "opt" else ("layers.1.", "model.norm.", "lm_head.")
    layer_norms = {name for name in expected if kind == "opt" and "layers.0.final_layer_norm" in name}
    assert untouched == {name for name in expected if any(part in name for part in above)} - layer_norms
    assert len(untouched) > 5 and len(expected) - len(untouched) > 5
    assert "forget_nll" not in step_logs(trainer)[0], "the forward went on to the head"


def test_hidden_states_of_the_last_block_are_taken_before_the_final_norm(tmp_path):
    model = tiny_model().double()
    before, start = copy.deepcopy(model), weights(model)
    trainer = make_trainer(
        tmp_path,
        model,
        per_device_train_batch_size=BATCH,
        gradient_accumulation_steps=ACCUMULATION,
        learning_rate=LR,
        forget_loss={"name": "rmu", "c": 3.0, "layer": 2, "seed": 7},
        retain_loss="none",
    )
    expected = run_and_expect(trainer, before, lambda m, rows: hidden.rmu(m, rows.forget, 2, 3.0, 7))
    assert_same_change(model, start, expected, rtol=1e-7)
    assert {name for name, change in expected.items() if not change.any()} == {"model.norm.weight", "lm_head.weight"}


@pytest.mark.parametrize("kind", ["llama", "opt"])
def test_a_step_of_the_seed_recipe_is_the_oracles(tmp_path, kind):
    policy = tiny_model(kind).double()
    reference = perturbed(policy)
    before, start = copy.deepcopy(policy), weights(policy)
    trainer = make_trainer(
        tmp_path,
        policy,
        per_device_train_batch_size=BATCH,
        gradient_accumulation_steps=ACCUMULATION,
        learning_rate=LR,
        forget_loss=[{"name": "grad_ascent", "weight": 0.5}, {"name": "random_mismatch", "k": 5, "weight": 1.0}],
        retain_loss="kl",
        ref_model=copy.deepcopy(reference),
    )
    assert [len(trainer.train_dataset[p]["mismatch"]) for p in range(4)] == [5] * 4

    def loss(model: nn.Module, rows: StepRows) -> Tensor:
        return naive.seed_recipe(
            model, reference, rows.forget, rows.mismatch, rows.retain, sources=rows.mismatch_sources
        )

    assert_same_change(policy, start, run_and_expect(trainer, before, loss), rtol=1e-7)


def test_weights_of_terms_are_not_mixed_up(tmp_path):
    trainer, _ = check_step(
        tmp_path, "llama", {"npo": 0.3, "simnpo": 1.7, "random_mismatch": 0.4}, {"nll": 0.6, "kl": 2.5}
    )
    log = step_logs(trainer)[0]
    forget = 0.3 * log["forget/npo"] + 1.7 * log["forget/simnpo"] + 0.4 * log["forget/random_mismatch"]
    retain = 0.6 * log["retain/nll"] + 2.5 * log["retain/kl"]
    assert log["loss"] == pytest.approx(0.7 * forget + 1.3 * retain, rel=1e-5)


@pytest.mark.parametrize("kind", ["llama", "opt"])
def test_a_step_of_every_loss_at_once(tmp_path, kind):
    # Every term has a weight of its own, and "jsd" stands on both sides.
    forget = {name: 0.2 + 0.1 * place for place, name in enumerate(FORGET_ORACLES)}
    retain = {name: 0.5 + 0.3 * place for place, name in enumerate(RETAIN_ORACLES)}
    trainer, _ = check_step(tmp_path, kind, forget, retain)
    log = step_logs(trainer)[0]
    sides = [
        sum(weight * log[f"{side}/{name}"] for name, weight in terms.items())
        for side, terms in (("forget", forget), ("retain", retain))
    ]
    assert log["loss"] == pytest.approx(0.7 * sides[0] + 1.3 * sides[1], rel=1e-5)


@pytest.mark.parametrize("kind", ["llama", "opt"])
def test_a_step_in_single_precision(tmp_path, kind):
    check_step(tmp_path, kind, {"grad_ascent": 1.0, "npo": 1.0}, {"kl": 1.0}, dtype=torch.float32, rtol=1e-4)


@pytest.mark.parametrize("kind", ["llama", "opt"])
@pytest.mark.parametrize(
    ("forget", "retain"),
    [("undial", "jsd"), ("rmu", "hidden"), ("ceu", "answer_preservation"), ("ihl", "kl"), ("max_entropy", "jsd")],
)
def test_distributions_and_hidden_states_in_single_precision(tmp_path, kind, forget, retain):
    check_step(tmp_path, kind, {forget: 1.0}, {retain: 1.0}, dtype=torch.float32, rtol=1e-4)


@pytest.mark.parametrize("retain_ratio", [0.5, 2.0])
@pytest.mark.parametrize(
    ("forget", "retain"), [("dpo", "kl"), ("jsd", "answer_preservation"), ("rmu", "hidden"), ("undial", "jsd")]
)
def test_a_step_with_another_number_of_retain_rows(tmp_path, retain_ratio, forget, retain):
    trainer, _ = check_step(tmp_path, "llama", {forget: 1.0}, {retain: 1.0}, retain_ratio=retain_ratio)
    assert len(rows_of_step(trainer).retain) == 4 * retain_ratio
