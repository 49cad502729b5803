"""Every step wrapper around unlike losses, with and without adapters, for two steps: it runs and moves. No formula."""

from typing import Any

import pytest
import torch
from peft import LoraConfig

from fixtures.models import make_trainer, step_logs, tiny_model, weights
from hf_unlearn.steps import STEP_WRAPPERS

LORA = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"])
LOSSES: dict[str, dict[str, Any]] = {
    "npo+nll": dict(forget_loss="npo", retain_loss="nll", learning_rate=0.05),
    "rmu+hidden": dict(forget_loss="rmu", retain_loss="hidden", learning_rate=1.0),
    "undial+kl": dict(forget_loss={"name": "undial", "weight": 10.0}, retain_loss="kl", learning_rate=1.0),
}
# Cheap enough for a test, and all of them at once last.
WRAPPERS: dict[str, Any] = {name: {"name": name} for name in STEP_WRAPPERS}
WRAPPERS["latent_adversarial"] |= {"steps": 2}
WRAPPERS["random_smoothing"] |= {"samples": 2}
WRAPPERS["every"] = list(WRAPPERS.values())


def test_no_wrapper_is_left_out():
    assert WRAPPERS.keys() == {*STEP_WRAPPERS, "every"} and len(WRAPPERS["every"]) == len(STEP_WRAPPERS)


@pytest.mark.parametrize("losses", LOSSES)
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_two_steps_are_finite_and_move(tmp_path, wrapper, losses):
    """In turn with and without an adapter, so that each wrapper and each pair of losses has both."""
    adapter = LORA if ([*WRAPPERS].index(wrapper) + [*LOSSES].index(losses)) % 2 else None
    kind = "opt" if losses == "undial+kl" else "llama"
    trainer = make_trainer(
        tmp_path,
        tiny_model(kind),
        max_steps=2,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        step_wrappers=WRAPPERS[wrapper],
        peft_config=adapter,
        **LOSSES[losses],
    )
    before = weights(trainer.model)
    trainer.train()
    assert trainer.state.global_step == 2 and trainer.stop_reason is None
    after = weights(trainer.model)
    assert all(bool(torch.isfinite(weight).all()) for weight in after.values())
    moved = {name for name, weight in after.items() if float((weight - before[name]).abs().max()) > 1e-6}
    trainable = {name for name, weight in trainer.model.named_parameters() if weight.requires_grad}
    assert moved and moved <= trainable
    first, second = step_logs(trainer)
    assert all(value == value and abs(value) < float("inf") for log in (first, second) for value in log.values())
    assert first["grad_norm"] > 0 and first["loss"] != second["loss"]
