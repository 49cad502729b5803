"""Stop rules and the guard against broken losses: when a run stops, why, and what stays of it. No loss formula."""

import json
import math
from dataclasses import dataclass

import pytest
import torch
from transformers import TrainerCallback

from fixtures.bad_input import CANARY, build, holdout, logged, rows, sets, weights
from fixtures.models import tiny_model
from hf_unlearn.data.roles import Role
from hf_unlearn.losses import GradientAscent, Loss, RetainNLL
from hf_unlearn.model.score_rows import RowScorer
from hf_unlearn.training.hooks.callbacks import stop_rules_of

STEPS = 12
ASCENT = dict(max_steps=STEPS, lr_scheduler_type="constant")


def saved_reason(folder) -> str | None:
    """The reason of a stop as trainer_state.json has it, or None where the file has no such entry."""
    state = json.loads((folder / "trainer_state.json").read_text())
    return state["stateful_callbacks"]["StopRules"]["attributes"]["stop_reason"]


def test_a_run_that_nothing_stops(tmp_path):
    trainer = build(tmp_path, **ASCENT)
    assert trainer.stop_reason is None
    trainer.train()
    assert (trainer.stop_reason, trainer.state.global_step) == (None, STEPS)
    trainer.save_state()
    assert saved_reason(tmp_path) is None


def test_a_forget_target(tmp_path):
    ascent = dict(retain_weight=0.0, **ASCENT)
    free = build(tmp_path / "free", **ascent)
    free.train()
    nlls = logged(free, "forget_nll")
    target = (nlls[2] + nlls[3]) / 2
    assert nlls[:4] == sorted(nlls[:4]) and nlls[0] < target

    trainer = build(tmp_path, stop_forget_nll=target, **ascent)
    trainer.train()
    # The logged NLL is from before its step: the fourth is the first above the target.
    assert logged(trainer, "forget_nll") == nlls[:4]
    assert trainer.state.global_step == 4
    assert trainer.stop_reason == f"forget NLL {nlls[3]:.4g} (training rows) reached the target {target:.4g} at step 4"
    trainer.save_state()
    assert saved_reason(tmp_path) == trainer.stop_reason


def test_the_level_of_a_holdout_as_forget_target(tmp_path):
    data = {**sets(), "holdout": holdout()}
    trainer = build(tmp_path, train_dataset=data, stop_forget_nll="holdout", retain_weight=0.0, **ASCENT)
    before = trainer.evaluate(data["holdout"])["eval_nll"]
    trainer.train()
    assert trainer.baseline.forget_target == pytest.approx(before, rel=1e-5)
    *below, last = logged(trainer, "forget_nll")
    assert all(nll < before for nll in below) and last >= before
    assert trainer.state.global_step == len(below) + 1 < STEPS
    assert f"reached the target {before:.4g}" in trainer.stop_reason


def test_a_rise_of_the_retain_loss(tmp_path):
    unkept = dict(retain_weight=0.0, **ASCENT)
    free = build(tmp_path / "free", **unkept)
    free.train()
    nlls = logged(free, "retain_nll")
    start = free.evaluate(sets()["retain"])["eval_nll"]
    trainer = build(tmp_path, stop_retain_nll_increase=0.3, **unkept)
    trainer.train()
    limit = trainer.baseline.retain_nll + 0.3
    above = [step for step, nll in enumerate(nlls, 1) if nll > limit]
    assert above and above[0] > 1 and start > limit, "ascent alone should raise it, but not at once"
    assert trainer.state.global_step == above[0]
    assert trainer.stop_reason.startswith(f"retain NLL {nlls[above[0] - 1]:.4g} (training rows) rose above the limit")


def test_rules_watch_the_evaluation_sets_where_there_are_any(tmp_path):
    evaluated = {"forget": sets()["forget"], "retain": rows("held-out retain", 5)}
    arguments = dict(retain_weight=0.0, eval_strategy="steps", eval_steps=2, learning_rate=5e-4, **ASCENT)
    trainer = build(tmp_path, eval_dataset=evaluated, stop_retain_nll_increase=0.2, **arguments)
    before = trainer.evaluate({"retain": evaluated["retain"]})["eval_retain_nll"]
    trainer.train()
    assert trainer.baseline.retain_nll == pytest.approx(before, rel=1e-5), "of the rows that are watched"
    *below, last = logged(trainer, "eval_retain_nll")
    assert below and all(nll <= before + 0.2 for nll in below) and last > before + 0.2
    assert trainer.state.global_step == 2 * (len(below) + 1) < STEPS
    assert "(evaluation rows) rose above the limit" in trainer.stop_reason


def test_sets_that_are_never_evaluated_are_not_waited_for(tmp_path):
    trainer = build(tmp_path, eval_dataset={"forget": sets()["forget"]}, stop_forget_nll=0.1, **ASCENT)
    trainer.train()
    assert (trainer.state.global_step, "(training rows)" in trainer.stop_reason) == (1, True)


def test_the_first_reason_stands(tmp_path):
    trainer = build(tmp_path, stop_forget_nll=0.1, stop_retain_nll_increase=0.0, retain_weight=0.0, **ASCENT)
    trainer.train()
    assert trainer.stop_reason.startswith("forget NLL")
    assert trainer.state.global_step == 1


def test_a_reason_in_a_checkpoint(tmp_path):
    trainer = build(tmp_path, stop_forget_nll=0.1, **{**ASCENT, "save_strategy": "steps", "save_steps": 1})
    trainer.train()
    assert trainer.stop_reason == saved_reason(tmp_path / "checkpoint-1") is not None
    # A resumed run is a new run: it has its own reason, or none.
    resumed = build(tmp_path, **{**ASCENT, "max_steps": 3, "save_strategy": "steps", "save_steps": 1})
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))
    assert (resumed.stop_reason, resumed.state.global_step) == (None, 3)
    assert saved_reason(tmp_path / "checkpoint-3") is None


def test_a_second_run_has_its_own_reason(tmp_path):
    trainer = build(tmp_path, stop_forget_nll=0.1, **ASCENT)
    trainer.train()
    assert trainer.stop_reason is not None
    stop_rules_of(trainer.callback_handler).watch(None, None)
    trainer.train()
    assert (trainer.stop_reason, trainer.state.global_step) == (None, STEPS)


def test_an_evaluation_after_the_run_is_no_reason(tmp_path):
    trainer = build(tmp_path, eval_dataset=sets(), **{**ASCENT, "max_steps": 1, "stop_forget_nll": 50.0})
    trainer.train()
    stop_rules_of(trainer.callback_handler).watch(0.1, None)
    assert trainer.evaluate()["eval_forget_nll"] > 0.1
    assert trainer.stop_reason is None


@dataclass(frozen=True)
class BreaksAt(Loss):
    """Gradient ascent whose value is not finite in one call."""

    call: int = 3
    value: float = math.nan

    name, unit, on, formula = "breaks", "token", Role.FORGET, "mean_t lp_t"

    def __post_init__(self) -> None:
        object.__setattr__(self, "calls", [])

    def __call__(self, scores):
        self.calls.append(None)
        return scores.forget.logps * (self.value if len(self.calls) == self.call else 1.0)


class Snapshots(TrainerCallback):
    """The weights after each step."""

    def __init__(self) -> None:
        self.weights: list[torch.Tensor] = []

    def on_step_end(self, args, state, control, model=None, **kwargs):
        self.weights.append(weights(model))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("optimizer", ["adamw_torch", "sgd"])
def test_a_loss_that_is_not_finite_never_reaches_the_weights(tmp_path, value, optimizer):
    whole, broken = Snapshots(), Snapshots()
    # Weight decay and momentum would move weights even without a gradient.
    arguments = dict(optim=optimizer, weight_decay=0.1, **{**ASCENT, "max_steps": 4})
    build(tmp_path / "whole", callbacks=[whole], **arguments).train()
    trainer = build(tmp_path, callbacks=[broken], forget_loss=BreaksAt(value=value), **arguments)
    trainer.train()
    assert trainer.stop_reason == "the loss was not finite at step 2"
    assert trainer.state.global_step == 3 and len(broken.weights) == 3
    for expected, found in zip(whole.weights[:2], broken.weights[:2], strict=True):
        assert torch.equal(expected, found)
    assert torch.equal(broken.weights[2], broken.weights[1]), "the third step must not be taken"
    assert not torch.equal(whole.weights[2], whole.weights[1])
    assert torch.isfinite(weights(trainer.model)).all()
    # It shows in the logs as it is.
    assert not math.isfinite(logged(trainer, "forget/breaks")[2])
    trainer.save_state()
    assert saved_reason(tmp_path) == trainer.stop_reason


def test_one_broken_micro_batch_drops_the_whole_step(tmp_path):
    arguments = dict(per_device_train_batch_size=2, gradient_accumulation_steps=2, **{**ASCENT, "max_steps": 3})
    broken = Snapshots()
    trainer = build(tmp_path, callbacks=[broken], forget_loss=BreaksAt(call=3), **arguments)
    trainer.train()
    assert torch.equal(broken.weights[0], broken.weights[1]) and trainer.state.global_step == 2
    assert trainer.stop_reason == "the loss was not finite at step 1"


def test_without_the_guard_the_weights_break(tmp_path):
    trainer = build(tmp_path, forget_loss=BreaksAt(), stop_on_nonfinite=False, **{**ASCENT, "max_steps": 4})
    trainer.train()
    assert (trainer.stop_reason, trainer.state.global_step) == (None, 4)
    assert torch.isnan(weights(trainer.model)).any()


def test_components_are_the_mean_of_a_logging_window(tmp_path):
    arguments = {**ASCENT, "max_steps": 6}
    each = build(tmp_path / "each", **arguments)
    each.train()
    thirds = build(tmp_path, **{**arguments, "logging_steps": 3})
    thirds.train()
    for name in ("forget_nll", "retain_nll", "forget/grad_ascent", "retain/nll", "loss"):
        singles = torch.tensor(logged(each, name))
        assert logged(thirds, name) == pytest.approx(singles.view(2, 3).mean(1).tolist(), rel=1e-4)


def test_a_second_run_starts_a_window_of_its_own(tmp_path):
    # Five steps and a log every third: two steps are left over, and the step count starts again.
    trainer = build(tmp_path, **{**ASCENT, "max_steps": 5, "logging_steps": 3, "learning_rate": 0.0})
    trainer.train()
    (first,) = logged(trainer, "forget_nll")
    trainer.train()
    (second,) = logged(trainer, "forget_nll")
    assert second == pytest.approx(first, rel=0.2)


def test_a_resumed_run_counts_its_own_steps(tmp_path):
    saving = {**ASCENT, "max_steps": 6, "logging_steps": 3, "save_strategy": "steps", "save_steps": 4}
    trainer = build(tmp_path, **saving)
    trainer.train()
    resumed = build(tmp_path, **saving)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    each = build(tmp_path / "each", **{**ASCENT, "max_steps": 6})
    each.train()
    # The window of steps 4 to 6, of which the resumed run took the last two.
    assert logged(resumed, "forget_nll")[-1] == pytest.approx(sum(logged(each, "forget_nll")[4:]) / 2, rel=1e-4)


def test_baseline_rows_are_those_of_the_model_before(tmp_path):
    trainer = build(tmp_path, train_dataset={**sets(), "holdout": holdout()}, forget_nll_bound="holdout", max_steps=3)
    scorer = RowScorer(trainer._prepared.collator, trainer.accelerator, 4)
    expected = scorer(tiny_model(), trainer.train_sets.holdout, "holdout").nll_per_token().mean()
    trainer.train()
    assert trainer.baseline.bound == pytest.approx(float(expected), rel=1e-5)
    after = scorer(trainer.model, trainer.train_sets.holdout, "holdout").nll_per_token().mean()
    assert abs(float(after - expected)) > 1e-3


def test_no_row_in_what_a_run_writes(tmp_path, caplog, capsys):
    trainer = build(
        tmp_path, forget_loss=[GradientAscent()], retain_loss=RetainNLL(), stop_forget_nll=0.1, save_strategy="epoch"
    )
    trainer.train()
    trainer.save_state()
    output = capsys.readouterr()
    written = [path.read_bytes() for path in tmp_path.rglob("*.json")] + [caplog.text.encode()]
    assert len(written) > 3
    assert not any(CANARY.encode() in text for text in (*written, output.out.encode(), output.err.encode()))
