"""A finite loss whose gradient is not: the step is not taken, and the state before it is saved with the reason."""

import json
import math
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType

from fixtures.models import make_trainer, step_logs, tiny_model, weights
from hf_unlearn.data.roles import Role
from hf_unlearn.losses import Loss
from hf_unlearn.training.step.overflow import searches_scale


class Broken(torch.autograd.Function):
    """The identity, whose gradient is a given value."""

    @staticmethod
    def forward(ctx, values, gradient):
        ctx.gradient = gradient
        return values.clone()

    @staticmethod
    def backward(ctx, gradient):
        return torch.full_like(gradient, ctx.gradient), None


@dataclass(frozen=True)
class BreaksBackward(Loss):
    """Gradient ascent, whose gradient is not finite in one call."""

    call: int = 3
    value: float = math.nan

    name, unit, on, formula = "breaks_backward", "token", Role.FORGET, "mean_t lp_t"

    def __post_init__(self) -> None:
        object.__setattr__(self, "calls", [])

    def __call__(self, scores):
        self.calls.append(None)
        return Broken.apply(scores.forget.logps, self.value) if len(self.calls) == self.call else scores.forget.logps


CASES = {
    "nan": {},
    "infinite": dict(loss=BreaksBackward(value=math.inf)),
    "no clipping": dict(max_grad_norm=0.0),
    "clipping": dict(max_grad_norm=1.0),
    "a micro-batch": dict(loss=BreaksBackward(call=5), per_device_train_batch_size=2, gradient_accumulation_steps=2),
    "saliency": dict(step_wrappers={"name": "saliency", "keep": 0.5}, loss=BreaksBackward(call=6)),
    "averaging": dict(step_wrappers="weight_averaging"),
    "surgery": dict(step_wrappers="surgery"),
    "a moving weight": dict(weighting="primal_dual"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_step_whose_gradient_is_not_finite_is_not_taken(tmp_path, case):
    options = dict(optim="adamw_torch", weight_decay=0.1, save_strategy="steps", save_steps=100) | CASES[case]
    loss = options.pop("loss", BreaksBackward())
    whole = make_trainer(tmp_path / "whole", tiny_model(), forget_loss="grad_ascent", max_steps=2, **options)
    whole.train()
    trainer = make_trainer(tmp_path, tiny_model(), forget_loss=loss, max_steps=6, **options)
    trainer.train()
    assert trainer.stop_reason == "the gradient was not finite at step 2"
    assert math.isfinite(trainer.state.log_history[2]["loss"]) and trainer.state.global_step == 3
    for name, weight in weights(trainer.model).items():
        assert torch.equal(weight, weights(whole.model)[name]), name
    assert trainer._steps.retain_weight == whole._steps.retain_weight
    state = json.loads((tmp_path / "out/checkpoint-3/trainer_state.json").read_text())
    assert state["stateful_callbacks"]["StopRules"]["attributes"]["stop_reason"] == trainer.stop_reason
    trainer.save_model()
    assert json.loads((tmp_path / "out/results.json").read_text())["stop_reason"] == trainer.stop_reason


def test_overflows_of_fp16_are_its_own(tmp_path):
    scaler = SimpleNamespace(is_enabled=lambda: True, get_scale=lambda: 2.0**16)
    accelerator = SimpleNamespace(distributed_type=DistributedType.NO, mixed_precision="fp16", scaler=scaler)
    assert searches_scale(accelerator)
    scaler.get_scale = lambda: 0.5  # no scale is at fault any more
    assert not searches_scale(accelerator)
    accelerator.scaler = None
    assert not searches_scale(accelerator)
    for precision, own in (("fp16", True), ("bf16", False), ("no", False)):
        engine = SimpleNamespace(distributed_type=DistributedType.DEEPSPEED, mixed_precision=precision, scaler=None)
        assert searches_scale(engine) is own


def test_what_follows_a_step_waits_where_the_scaler_leaves_one_out(tmp_path, monkeypatch):
    """accelerate has fp16 on GPUs alone; the scaler is torch's own, on a CPU."""
    loss = BreaksBackward(value=math.inf)
    trainer = make_trainer(tmp_path, tiny_model(), forget_loss=loss, max_steps=5, weighting="primal_dual")
    monkeypatch.setitem(AcceleratorState._shared_state, "_mixed_precision", "fp16")
    trainer.accelerator.native_amp = True
    trainer.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    trainer.train()
    assert (trainer.stop_reason, trainer.accelerator.scaler.get_scale()) == (None, 2.0)
    retain_weights = [log["retain_weight"] for log in step_logs(trainer)]  # as each step has left it
    assert retain_weights[1] == retain_weights[2] and len(set(retain_weights)) == 4
