"""How w_r is set over a run: by the oracle's rule from the logged retain losses, or not at all. Not the losses."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from fixtures.bad_input import config
from fixtures.examples import assert_user_error
from fixtures.models import make_trainer, step_logs, tiny_model
from hf_unlearn.steps.weighting import WEIGHTINGS, Fixed, PrimalDual
from hf_unlearn.training.method_specs import weighting_of
from oracles import steps


def logs_of(folder: Path, weighting: Any, **arguments: Any) -> list[dict[str, float]]:
    """What five steps of grad_ascent and nll log."""
    defaults = dict(forget_loss="grad_ascent", max_steps=5, learning_rate=0.02)
    trainer = make_trainer(folder, tiny_model("opt").double(), weighting=weighting, **defaults | arguments)
    trainer.train()
    return step_logs(trainer)


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("wrappers", [None, "sam", "latent_adversarial"])
def test_the_weight_is_the_oracles_after_every_step(tmp_path, accumulation, wrappers):
    rule = PrimalDual(eta=0.3, epsilon=3.0)
    terms = [{"name": "nll", "weight": 0.5}, {"name": "answer_preservation", "weight": 0.1}]
    logs = logs_of(
        tmp_path,
        rule,
        retain_loss=terms,
        retain_weight=1.5,
        forget_weight=0.7,
        step_wrappers=wrappers,
        per_device_train_batch_size=4 // accumulation,
        gradient_accumulation_steps=accumulation,
    )
    losses = [0.5 * log["retain/nll"] + 0.1 * log["retain/answer_preservation"] for log in logs]
    expected = steps.primal_dual(1.5, losses, rule.eta, rule.epsilon)
    assert [log["retain_weight"] for log in logs] == pytest.approx(expected, rel=1e-5)
    assert len({round(weight, 3) for weight in expected}) == 5
    # The weight that a step logs is that of the next one.
    for used, log, loss in zip([1.5, *expected], logs, losses, strict=False):
        assert log["loss"] == pytest.approx(0.7 * log["forget/grad_ascent"] + used * loss, rel=1e-5, abs=1e-5)


def test_the_weight_is_never_negative_and_comes_back(tmp_path):
    # The retain loss rises through epsilon while nothing holds it.
    rule = PrimalDual(eta=10.0, epsilon=5.9)
    logs = logs_of(tmp_path, rule, retain_weight=0.01, max_steps=8, learning_rate=0.05)
    weights, losses = ([log[name] for log in logs] for name in ("retain_weight", "retain/nll"))
    assert weights == pytest.approx(steps.primal_dual(0.01, losses, rule.eta, rule.epsilon), rel=1e-4, abs=1e-4)
    assert weights[0] == 0.0 and min(weights) == 0.0 and max(weights) > 1
    assert losses[0] < rule.epsilon < max(losses)


def test_a_window_of_several_steps_logs_the_present_weight(tmp_path):
    every, second = (
        logs_of(tmp_path / str(window), "primal_dual", logging_steps=window, max_steps=4) for window in (1, 2)
    )
    assert [log["retain_weight"] for log in second] == [every[1]["retain_weight"], every[3]["retain_weight"]]
    assert second[0]["loss"] == pytest.approx((every[0]["loss"] + every[1]["loss"]) / 2)


def test_a_step_without_retain_rows_leaves_the_weight_alone(tmp_path):
    logs = logs_of(tmp_path, "primal_dual", per_device_train_batch_size=1, retain_ratio=0.5)
    present = ["retain/nll" in log for log in logs]
    assert set(present) == {True, False}
    losses = [log.get("retain/nll") for log in logs]
    expected, weight = [], 1.0
    for loss in losses:
        if loss is not None:
            (weight,) = steps.primal_dual(weight, [loss], 1.0, 0.1)
        expected.append(weight)
    assert [log["retain_weight"] for log in logs] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("weighting", ["fixed", None, {"name": "fixed"}, Fixed()])
def test_a_fixed_weight_stays_and_is_not_logged(tmp_path, weighting):
    logs = logs_of(tmp_path, weighting, retain_weight=1.5)
    assert not any("retain_weight" in log for log in logs)
    for log in logs:
        # A difference of two numbers near 6, each rounded to fp32.
        assert log["loss"] == pytest.approx(log["forget/grad_ascent"] + 1.5 * log["retain/nll"], rel=1e-5, abs=1e-5)


def test_the_rule_by_hand():
    rule = PrimalDual(eta=2.0, epsilon=0.5)
    assert rule.updated(1.0, 0.75) == 1.5
    assert rule.updated(1.0, 0.25) == 0.5
    assert rule.updated(0.25, 0.0) == 0.0
    assert Fixed().updated(1.25, 1e9) == 1.25


# --- Where it comes from ---


@pytest.mark.parametrize(
    ("spec", "rule"),
    [
        ("primal_dual", PrimalDual()),
        ({"name": "primal_dual", "eta": 0.5}, PrimalDual(eta=0.5)),
        ('{"name": "primal_dual", "epsilon": 2}', PrimalDual(epsilon=2)),
        (PrimalDual(eta=3), PrimalDual(eta=3)),
        ("fixed", Fixed()),
        (None, Fixed()),
    ],
)
def test_a_weighting_as_it_may_be_written(tmp_path, spec, rule):
    args = config(tmp_path, weighting=spec)
    assert weighting_of(args.weighting) == rule
    written = json.loads(args.to_json_string())["weighting"]
    assert weighting_of(written) == rule
    assert weighting_of(config(tmp_path, weighting=written).weighting) == rule


def test_every_weighting_says_what_it_computes():
    assert all(name == rule.name and rule.formula for name, rule in WEIGHTINGS.items())


BAD = {
    "an unknown name": ("primal_duel", ["weighting", "'primal_duel'", "did you mean 'primal_dual'"]),
    "an unknown argument": ({"name": "primal_dual", "epsilom": 1}, ["'epsilom'", "did you mean 'epsilon'"]),
    "a list": (["fixed"], ["weighting", "a list"]),
    "no name": ({"eta": 1}, ["weighting", "`name`"]),
    "a negative step": ({"name": "primal_dual", "eta": -1}, ["eta of primal_dual", "above 0", "-1"]),
    "no step": ({"name": "primal_dual", "eta": 0}, ["eta of primal_dual", "above 0"]),
    "an infinite step": ({"name": "primal_dual", "eta": math.inf}, ["eta of primal_dual", "finite"]),
    "a step that is no number": ({"name": "primal_dual", "eta": "1"}, ["eta of primal_dual", "a number", "'1'"]),
    "a negative limit": ({"name": "primal_dual", "epsilon": -0.1}, ["epsilon of primal_dual", "0 or above"]),
    "NaN": ({"name": "primal_dual", "epsilon": math.nan}, ["epsilon of primal_dual", "a number", "nan"]),
}


@pytest.mark.parametrize("case", BAD)
def test_weightings_that_are_refused(tmp_path, case):
    spec, words = BAD[case]
    with pytest.raises(ValueError) as caught:
        config(tmp_path, weighting=spec)
    assert_user_error(str(caught.value), *words)
