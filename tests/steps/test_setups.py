"""Setups in which a wrapper would do something else than its formula, and what a run of it leaves behind."""

import itertools

import datasets
import pytest
import torch

from fixtures.models import make_trainer, step_logs, tiny_model, train_sets
from hf_unlearn.training.step.kept_state import STATE_FILE

PARTS = "Expected .*\nGot: .*\nWhy it matters: .*\nWhat to do: "


@pytest.mark.parametrize("wrapper", ["sam", "random_smoothing"])
def test_steps_away_from_16_bit_weights_are_refused(tmp_path, wrapper):
    with pytest.raises(ValueError, match=f"{wrapper} without trainable weights in 16 bits"):
        make_trainer(tmp_path, tiny_model().to(torch.bfloat16), step_wrappers=wrapper)


def test_an_average_of_16_bit_weights_is_taken_in_single_precision(tmp_path):
    trainer = make_trainer(
        tmp_path, tiny_model().to(torch.bfloat16), step_wrappers="weight_averaging", max_steps=3, learning_rate=0.5
    )
    trainer.train()
    average = trainer._steps._states["weight_averaging"]["average"]
    assert {each.dtype for each in average} == {torch.float32}
    for weight, mean in zip(trainer.model.parameters(), average, strict=True):
        assert torch.equal(weight.detach(), mean.to(torch.bfloat16))


def test_saliency_is_not_measured_on_a_stream(tmp_path):
    sets = {name: rows.to_iterable_dataset() for name, rows in train_sets().items()}
    with pytest.raises(ValueError, match="sets with a length, for saliency"):
        make_trainer(tmp_path, tiny_model(), sets=sets, step_wrappers="saliency")


@pytest.mark.parametrize("optim", ["lomo", "galore_adamw_layerwise", "apollo_adamw_layerwise"])
def test_optimizers_that_step_inside_backward_are_refused(tmp_path, optim):
    with pytest.raises(ValueError, match=f"{PARTS}|{optim}"):
        make_trainer(tmp_path, tiny_model(), step_wrappers="sam", optim=optim, optim_target_modules=["q_proj"])


def test_a_wrapper_or_weighting_of_the_retain_side_needs_one(tmp_path):
    for arguments in ({"step_wrappers": "surgery"}, {"weighting": "primal_dual"}):
        with pytest.raises(ValueError, match="a retain loss, for"):
            make_trainer(tmp_path, tiny_model(), retain_loss="none", **arguments)


def test_an_attack_above_what_the_losses_read_is_refused(tmp_path):
    attack = {"name": "latent_adversarial", "layer": 2, "steps": 1}
    losses = {"forget_loss": {"name": "rmu", "layer": 1}, "retain_loss": {"name": "hidden", "layer": 1}}
    with pytest.raises(ValueError, match="at or below layer 1"):
        make_trainer(tmp_path, tiny_model(), step_wrappers=attack, **losses)
    make_trainer(tmp_path, tiny_model(), step_wrappers=attack | {"layer": 1}, **losses)


def test_a_loss_that_is_not_finite_at_perturbed_weights_never_reaches_them(tmp_path):
    model = tiny_model()
    before = [weight.detach().clone() for weight in model.parameters()]
    trainer = make_trainer(tmp_path, model, step_wrappers={"name": "sam", "rho": 1e25}, max_steps=2)
    trainer.train()
    assert "not finite" in trainer.stop_reason
    assert all(torch.equal(weight, old) for weight, old in zip(model.parameters(), before, strict=True))


def test_a_mask_is_measured_on_the_model_that_model_init_makes(tmp_path):
    trainer = make_trainer(tmp_path, None, model_init=lambda: tiny_model(), step_wrappers="saliency", max_steps=2)
    trainer.train()
    same = make_trainer(tmp_path / "same", tiny_model(), step_wrappers="saliency", max_steps=2)
    same.train()
    assert [log["loss"] for log in step_logs(trainer)] == [log["loss"] for log in step_logs(same)]


@pytest.mark.parametrize("arguments", [{}, {"weighting": "primal_dual"}], ids=["plain", "primal dual"])
def test_a_resumed_run_has_its_retain_weight(tmp_path, arguments):
    options = dict(max_steps=3, save_strategy="steps", save_steps=1, retain_weight=5.0, **arguments)
    whole = make_trainer(tmp_path, tiny_model(), **options)
    whole.train()
    resumed = make_trainer(tmp_path, tiny_model(), **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-1"))
    assert len(step_logs(whole)) == len(step_logs(resumed)) == 3
    assert [log["loss"] for log in step_logs(whole)] == [log["loss"] for log in step_logs(resumed)]


def test_a_plain_checkpoint_holds_no_state_of_wrappers(tmp_path):
    for name, arguments in (("plain", {}), ("dual", {"weighting": "primal_dual"})):
        trainer = make_trainer(tmp_path / name, tiny_model(), save_strategy="steps", save_steps=1, **arguments)
        trainer.train()
        assert (tmp_path / name / "out" / "checkpoint-1" / STATE_FILE).is_file() == bool(arguments)


def test_a_stream_with_an_odd_end_moves_the_weight_by_one_steps_loss(tmp_path):
    sets = {
        name: datasets.Dataset.from_list(rows.to_list()[:3]).to_iterable_dataset()
        for name, rows in train_sets().items()
    }
    trainer = make_trainer(
        tmp_path,
        tiny_model(),
        sets=sets,
        weighting={"name": "primal_dual", "eta": 1.0, "epsilon": 0.0},
        per_device_train_batch_size=1,
        gradient_accumulation_steps=2,
        max_steps=2,
        max_length=64,
        learning_rate=1e-6,
    )
    trainer.train()
    weights = [1.0, *(log["retain_weight"] for log in step_logs(trainer))]
    steps = [after - before for before, after in itertools.pairwise(weights)]
    assert 0.5 < steps[1] / steps[0] < 1.5
