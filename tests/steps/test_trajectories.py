"""What must not change a run inside step wrappers: how a step is split, an interruption. And what it logs.

The models are OPT in fp64: Llama's norms are in fp32 whatever the model is in.
"""

import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from torch import Tensor

from fixtures.models import make_trainer, perturbed, step_logs, tiny_model, weights
from hf_unlearn import UnlearningTrainer
from hf_unlearn.results.record import RECORD_FILE
from hf_unlearn.training.step.kept_state import STATE_FILE

LORA = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"])
ATTACK = {"name": "latent_adversarial", "epsilon": 0.7, "steps": 2}
SAM = {"name": "sam", "rho": 0.05}
PRIMAL_DUAL = {"name": "primal_dual", "eta": 0.1, "epsilon": 1.0}

Trajectory = tuple[list[dict[str, float]], dict[str, Tensor]]


def trainer_of(folder: Path, **arguments: Any) -> UnlearningTrainer:
    """Four steps of grad_ascent and nll, the fourth in a second epoch, unless `arguments` differ."""
    defaults = dict(forget_loss="grad_ascent", max_steps=4, learning_rate=0.01)
    return make_trainer(folder, tiny_model("opt").double(), **defaults | arguments)


def recorded(trainer: UnlearningTrainer) -> Trajectory:
    logs = [{k: v for k, v in log.items() if k not in ("epoch", "step")} for log in step_logs(trainer)]
    assert all(one["loss"] != other["loss"] for one, other in pairwise(logs))
    return logs, weights(trainer.model)


def trajectory(folder: Path, **arguments: Any) -> Trajectory:
    trainer = trainer_of(folder, **arguments)
    trainer.train()
    return recorded(trainer)


def assert_same(one: Trajectory, other: Trajectory, tolerance: float) -> None:
    """Equal weights and logs (which are sums in fp32); with tolerance 0, to the last bit."""
    assert len(one[0]) == len(other[0])
    for a, b in zip(one[0], other[0], strict=True):
        assert a == (pytest.approx(b, rel=1e-5, abs=1e-6) if tolerance else b)
    assert one[1].keys() == other[1].keys()
    for name, weight in one[1].items():
        torch.testing.assert_close(weight, other[1][name], rtol=tolerance, atol=tolerance)


def largest_difference(one: Trajectory, other: Trajectory) -> float:
    return max(float((weight - other[1][name]).abs().max()) for name, weight in one[1].items())


# --- How a step is split ---


@pytest.mark.parametrize(
    "arguments",
    [
        dict(step_wrappers=SAM),
        dict(step_wrappers="surgery"),
        dict(step_wrappers={"name": "saliency", "score": "wagle", "keep": 0.3}),
        dict(step_wrappers={"name": "random_smoothing", "sigma": 0.01}),
        dict(step_wrappers=ATTACK),
        dict(weighting=PRIMAL_DUAL),
        # Half of the micro-batches of one row hold no retain row.
        dict(step_wrappers=[SAM, "surgery"], weighting=PRIMAL_DUAL, retain_ratio=0.5, retain_loss=["nll", "kl"]),
    ],
    ids=["sam", "surgery", "saliency", "smoothing", "attack", "primal_dual", "few retain rows"],
)
def test_batch_size_times_accumulation_is_all_that_counts(tmp_path, arguments):
    if "kl" in arguments.get("retain_loss", ()):
        arguments = arguments | {"ref_model": perturbed(tiny_model("opt").double())}
    one, two, four = (
        trajectory(
            tmp_path / str(batch),
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=4 // batch,
            **arguments,
        )
        for batch in (1, 2, 4)
    )
    assert_same(one, two, 1e-9)
    assert_same(one, four, 1e-9)


# --- The log ---


@pytest.mark.parametrize(
    "wrappers", [SAM, "surgery", [SAM, "surgery"], {"name": "saliency"}], ids=["sam", "surgery", "both", "saliency"]
)
@pytest.mark.parametrize("accumulation", [1, 4])
def test_the_first_log_is_that_of_a_plain_step(tmp_path, wrappers, accumulation):
    options = dict(
        per_device_train_batch_size=4 // accumulation,
        gradient_accumulation_steps=accumulation,
        forget_loss=["dpo", "simnpo"],
        retain_loss=["nll", "answer_preservation"],
        forget_weight=0.5,
        retain_weight=1.5,
        forget_nll_bound=5.85,
    )
    plain, _ = trajectory(tmp_path / "plain", **options)
    wrapped, _ = trajectory(tmp_path / "wrapped", step_wrappers=wrappers, **options)
    assert plain[0].keys() == wrapped[0].keys() >= {"loss", "forget/dpo", "retain/nll", "forget_nll", "bound_share"}
    assert 0 < plain[0]["bound_share"] < 1
    for name in plain[0].keys() - {"grad_norm"}:
        assert wrapped[0][name] == pytest.approx(plain[0][name], rel=1e-6), name
    assert wrapped[1]["loss"] != pytest.approx(plain[1]["loss"], rel=1e-6)


def test_the_first_log_of_a_smoothed_step_is_of_its_first_noisy_weights(tmp_path):
    plain, _ = trajectory(tmp_path / "plain")
    smoothed, _ = trajectory(tmp_path / "noisy", step_wrappers={"name": "random_smoothing", "sigma": 0.1})
    assert smoothed[0]["retain/nll"] == pytest.approx(plain[0]["retain/nll"], rel=1e-6)
    assert smoothed[0]["forget/grad_ascent"] == pytest.approx(plain[0]["forget/grad_ascent"], rel=0.1)
    assert smoothed[0]["forget/grad_ascent"] != pytest.approx(plain[0]["forget/grad_ascent"], rel=1e-3)


# --- Interrupted runs ---

RESUMED: dict[str, Any] = dict(optim="adamw_torch", save_strategy="steps", save_steps=2, lr_scheduler_type="linear")
RUNS: dict[str, dict[str, Any]] = {
    "smoothing": dict(step_wrappers="random_smoothing"),
    "saliency": dict(step_wrappers={"name": "saliency", "keep": 0.3}),
    "averaging": dict(step_wrappers="weight_averaging"),
    "averaging from the third": dict(step_wrappers={"name": "weight_averaging", "start": 3}),
    "primal_dual": dict(weighting=PRIMAL_DUAL),
    "sam+primal_dual": dict(step_wrappers=SAM, weighting=PRIMAL_DUAL),
}


def checkpoint(folder: Path) -> Path:
    return folder / "out" / "checkpoint-2"


@pytest.mark.parametrize("peft_config", [None, LORA], ids=["full", "lora"])
@pytest.mark.parametrize("run", RUNS)
def test_a_resumed_run_is_the_uninterrupted_one_to_the_last_bit(tmp_path, run, peft_config):
    options = RESUMED | RUNS[run] | {"peft_config": peft_config}
    whole = trajectory(tmp_path, **options)
    rest = trainer_of(tmp_path, **options)
    rest.train(resume_from_checkpoint=str(checkpoint(tmp_path)))
    assert rest.state.global_step == 4
    assert_same(whole, recorded(rest), 0)
    # The wrapper has not been idle after the checkpoint: a plain run that goes on from it ends elsewhere.
    other = trainer_of(tmp_path / "plain", **RESUMED, peft_config=peft_config)
    shutil.rmtree((checkpoint(tmp_path) / STATE_FILE).parent)
    (checkpoint(tmp_path) / RECORD_FILE).unlink()  # else the two would be told apart
    other.train(resume_from_checkpoint=str(checkpoint(tmp_path)))
    assert largest_difference(whole, recorded(other)) > 1e-7


def test_checkpoints_of_an_averaging_run_hold_the_weights_of_the_step(tmp_path):
    plain = trainer_of(tmp_path / "plain", **RESUMED)
    averaging = trainer_of(tmp_path / "averaging", **RESUMED, step_wrappers="weight_averaging")
    for trainer in (plain, averaging):
        trainer.train()
    one, other = ((tmp_path / name / "out" / "checkpoint-4" / "model.safetensors") for name in ("plain", "averaging"))
    assert one.read_bytes() == other.read_bytes()
    assert largest_difference(recorded(plain), recorded(averaging)) > 1e-5


def test_a_second_run_begins_its_own_average_and_weight(tmp_path):
    options = dict(step_wrappers="weight_averaging", weighting=PRIMAL_DUAL, max_steps=2)
    trainer = trainer_of(tmp_path / "one", **options)
    trainer.train()
    between = weights(trainer.model)
    trainer.train()
    fresh = trainer_of(tmp_path / "other", **options)
    with torch.no_grad():
        for name, weight in fresh.model.named_parameters():
            weight.copy_(between[name])
    fresh.train()
    assert_same(recorded(trainer), recorded(fresh), 0)


@pytest.mark.parametrize(
    ("written", "resumed", "words"),
    [
        ({}, dict(step_wrappers=SAM), ['step_wrappers: [{"name": "sam"', "step_wrappers: []"]),
        (dict(step_wrappers=SAM), {}, ["step_wrappers: []", 'step_wrappers: [{"name": "sam"']),
        (
            dict(step_wrappers=SAM),
            dict(step_wrappers="surgery"),
            ['step_wrappers: [{"name": "surgery"', 'step_wrappers: [{"name": "sam"'],
        ),
        (dict(step_wrappers=SAM), dict(step_wrappers=[SAM, "weight_averaging"]), ['{"name": "weight_averaging"']),
        ({}, dict(weighting="primal_dual"), ['weighting: {"name": "primal_dual"', 'weighting: {"name": "fixed"']),
        (dict(step_wrappers=SAM), dict(step_wrappers="sam"), ['step_wrappers: [{"name": "sam"', '"rho": ']),
        (dict(weighting="primal_dual"), {}, ['weighting: {"name": "fixed"', 'weighting: {"name": "primal_dual"']),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(tmp_path, written, resumed, words):
    trajectory(tmp_path, **RESUMED, **written)
    trainer = trainer_of(tmp_path, **RESUMED, **resumed)
    with pytest.raises(ValueError, match=r"Expected (.|\n)*Got: (.|\n)*Why it matters: (.|\n)*What to do: ") as caught:
        trainer.train(resume_from_checkpoint=str(checkpoint(tmp_path)))
    assert [word for word in words if word not in str(caught.value)] == []


@pytest.mark.parametrize("options", [{}, {"save_only_model": True}], ids=["whole", "model alone"])
def test_a_plain_checkpoint_is_resumed_by_a_plain_run_alone(tmp_path, options):
    whole = trajectory(tmp_path, **RESUMED, **options)
    assert not (checkpoint(tmp_path) / STATE_FILE).exists()
    trainer = trainer_of(tmp_path, **RESUMED, **options)
    trainer.train(resume_from_checkpoint=str(checkpoint(tmp_path)))
    assert trainer.state.global_step == 4
    if not options:
        assert_same(whole, recorded(trainer), 0)
    with pytest.raises(ValueError, match="step_wrappers: "):
        trainer_of(tmp_path, **RESUMED, step_wrappers=SAM).train(resume_from_checkpoint=str(checkpoint(tmp_path)))


def test_a_resumed_run_with_another_retain_weight_is_refused(tmp_path):
    trajectory(tmp_path, **RESUMED, retain_weight=1.0)
    trainer_of(tmp_path, **RESUMED, retain_weight=1.0).train(resume_from_checkpoint=str(checkpoint(tmp_path)))
    with pytest.raises(ValueError, match=r"retain_weight: 1\.0(.|\n)*retain_weight: 3\.0"):
        trainer_of(tmp_path, **RESUMED, retain_weight=3.0).train(resume_from_checkpoint=str(checkpoint(tmp_path)))


def test_the_state_is_no_part_of_the_model(tmp_path):
    trajectory(tmp_path, **RESUMED, step_wrappers="weight_averaging")
    _, notes = type(tiny_model("opt")).from_pretrained(checkpoint(tmp_path), output_loading_info=True)
    assert not notes["unexpected_keys"] and not notes["missing_keys"]
