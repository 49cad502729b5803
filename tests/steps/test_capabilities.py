"""What a wrapper can do follows from its classes: a third party's own is called in its place, an inert one refused."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch

from fixtures.examples import assert_four_parts
from fixtures.models import make_trainer, step_logs, tiny_model, weights
from hf_unlearn.steps import (
    SAM,
    ChangesForgetGradient,
    FollowsStep,
    GradientSurgery,
    KeepsState,
    LatentAdversarial,
    MasksGradient,
    MeasuresTrainingSet,
    PerturbsHiddenStates,
    RandomSmoothing,
    ReconcilesGradients,
    SaliencyMask,
    SetsFinalWeights,
    StepWrapper,
    WeightAveraging,
)
from hf_unlearn.steps.base import Gradients, State, Weights

KINDS = {
    SAM: {ChangesForgetGradient},
    RandomSmoothing: {ChangesForgetGradient},
    GradientSurgery: {ReconcilesGradients},
    LatentAdversarial: {PerturbsHiddenStates},
    SaliencyMask: {MeasuresTrainingSet, MasksGradient, FollowsStep},
    WeightAveraging: {KeepsState, FollowsStep, SetsFinalWeights},
}


@dataclass(frozen=True)
class Doubled(ChangesForgetGradient):
    """g_f <- 2 g_f."""

    name = "doubled"
    formula = "g_f <- 2 g_f"

    def forget_gradient(self, gradient: Callable[[], Gradients], weights: Weights, step: int) -> Gradients:
        return [2 * part for part in gradient()]


@dataclass(frozen=True)
class Counted(KeepsState, MasksGradient, FollowsStep, SetsFinalWeights):
    """Trains every other step, and writes the number of its steps into the weights at the end."""

    name = "counted"
    formula = "theta stays in odd steps"

    def begin(self, weights: Weights) -> State:
        return {"steps": [torch.zeros(1)]}

    def after_backward(self, state: State, weights: Weights) -> None:
        if state["steps"][0] % 2:
            for weight in weights:
                weight.grad = None

    def after_step(self, state: State, weights: Weights) -> None:
        state["steps"][0] += 1

    def finish(self, state: State, weights: Weights) -> None:
        with torch.no_grad():
            for weight in weights:
                weight.fill_(float(state["steps"][0]))


def test_what_each_of_ours_can_do():
    kinds = set().union(*KINDS.values())
    for wrapper, expected in KINDS.items():
        assert {kind for kind in kinds if isinstance(wrapper(), kind)} == expected


def test_a_wrapper_of_the_users_own_is_a_weight_of_the_forget_side(tmp_path):
    options = dict(forget_loss="grad_ascent", retain_loss="nll", max_steps=3, learning_rate=0.01)
    trained = []
    for name, own in (
        ("wrapped", dict(step_wrappers=Doubled())),
        ("weighted", dict(forget_weight=2.0)),
        ("plain", {}),
    ):
        trainer = make_trainer(tmp_path / name, tiny_model().double(), **options, **own)
        trainer.train()
        trained.append(weights(trainer.model))
    wrapped, weighted, plain = trained
    for name, weight in wrapped.items():
        torch.testing.assert_close(weight, weighted[name], rtol=1e-6, atol=1e-9)
    assert any((wrapped[name] - plain[name]).abs().max() > 1e-4 for name in wrapped)


def test_state_of_the_users_own_is_there_in_every_hook_and_new_in_every_run(tmp_path):
    trainer = make_trainer(tmp_path, tiny_model(), step_wrappers=Counted(), max_steps=3, learning_rate=0.1)
    for _ in range(2):  # a second run counts from 0 again
        trainer.train()
        assert all((weight == 3).all() for weight in weights(trainer.model).values())
    gradients = [log["grad_norm"] for log in step_logs(trainer)[:3]]
    assert gradients[1] == 0 and gradients[0] > 0 and gradients[2] > 0


def test_a_wrapper_that_does_nothing_is_refused():
    @dataclass(frozen=True)
    class Inert(StepWrapper):
        name = "inert"
        formula = "g_f <- 2 g_f"

        def forget_gradient(self, gradient: Callable[[], Gradients], weights: Weights, step: int) -> Gradients:
            return [2 * part for part in gradient()]

    with pytest.raises(ValueError) as error:
        Inert()
    assert_four_parts(str(error.value), "ChangesForgetGradient", "Inert, a StepWrapper alone", "hf_unlearn.steps")


def test_a_hook_that_is_missing_is_an_error_of_python():
    @dataclass(frozen=True)
    class Unfinished(ReconcilesGradients):
        name = "unfinished"
        formula = ""

    with pytest.raises(TypeError, match="abstract method"):
        Unfinished()
