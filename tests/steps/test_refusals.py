"""Step wrappers as they may be written, and what is refused of them: arguments, names, setups of a run. No formula."""

import dataclasses
import json
import math
from typing import Any

import pytest

from fixtures.bad_input import config
from fixtures.examples import assert_user_error
from fixtures.models import make_trainer, tiny_model
from hf_unlearn.steps import (
    SAM,
    STEP_WRAPPERS,
    GradientSurgery,
    LatentAdversarial,
    RandomSmoothing,
    SaliencyMask,
    StepWrapper,
    WeightAveraging,
)
from hf_unlearn.training.checks import require_setup
from hf_unlearn.training.distributed_setup import DistributedSetup
from hf_unlearn.training.method_specs import step_wrappers
from hf_unlearn.training.methods import Methods


def refused(make: Any, *words: str) -> None:
    """Call `make`; it must raise a whole user error with all the words."""
    with pytest.raises(
        ValueError,
    ) as caught:
        make()
    assert_user_error(str(caught.value), *words)


# --- As they may be written ---


@pytest.mark.parametrize(
    ("spec", "wrappers"),
    [
        (None, []),
        ("none", []),
        ("sam", [SAM()]),
        ({"name": "sam", "rho": 0.5}, [SAM(rho=0.5)]),
        (SAM(rho=0.5), [SAM(rho=0.5)]),
        (["sam", {"name": "saliency"}, RandomSmoothing()], [SAM(), SaliencyMask(), RandomSmoothing()]),
        (("sam", "surgery"), [SAM(), GradientSurgery()]),
        ('{"name": "latent_adversarial", "layer": 2}', [LatentAdversarial(layer=2)]),
        ('["sam", {"name": "weight_averaging", "start": 3}]', [SAM(), WeightAveraging(start=3)]),
        ([], []),
    ],
)
def test_wrappers_as_they_may_be_written(tmp_path, spec, wrappers):
    args = config(tmp_path, step_wrappers=spec)
    assert step_wrappers(args.step_wrappers) == wrappers
    written = json.loads(args.to_json_string())["step_wrappers"]
    assert step_wrappers(written) == wrappers
    assert config(tmp_path, step_wrappers=written).to_dict() == args.to_dict()


def test_every_wrapper_by_its_name():
    assert [step_wrappers(name)[0] for name in STEP_WRAPPERS] == [wrapper() for wrapper in STEP_WRAPPERS.values()]
    assert all(wrapper.formula and wrapper.paper for wrapper in STEP_WRAPPERS.values())


# --- Names and arguments ---

BAD_SPECS = {
    "an unknown name": ("samm", ["step_wrappers", "'samm'", "did you mean 'sam'"]),
    "another unknown name": ("weight_average", ["did you mean 'weight_averaging'"]),
    "an unknown argument": ({"name": "sam", "roh": 1}, ["argument of sam", "'roh'", "did you mean 'rho'"]),
    "a wrapper without arguments": ({"name": "surgery", "rho": 1}, ["argument of surgery", "'rho'"]),
    "the same twice": (["sam", "surgery", {"name": "sam", "rho": 1}], ["at most once in step_wrappers", "sam more"]),
    "a number": (3, ["step_wrappers", "int 3"]),
    "no name": ({"rho": 1}, ["step_wrappers", "`name`"]),
    "a list in a list": ([["sam"]], ["step_wrappers", "list"]),
    "text that is not JSON": ("[sam]", ["JSON"]),
    "a loss": ("npo", ["step_wrappers", "'npo'"]),
    "none among others": (["none", "sam"], ["step_wrappers", "'none'"]),
}


@pytest.mark.parametrize("case", BAD_SPECS)
def test_specs_that_are_refused(tmp_path, case):
    spec, words = BAD_SPECS[case]
    refused(lambda: config(tmp_path, step_wrappers=spec), *words)


BAD_ARGUMENTS: list[tuple[type[StepWrapper], str, list[Any]]] = [
    (SAM, "rho", [-0.1, math.nan, math.inf, "0.1", True, None]),
    (RandomSmoothing, "sigma", [-1e-3, math.nan, math.inf, "1"]),
    (RandomSmoothing, "samples", [0, -1, 1.5, math.nan, True]),
    (RandomSmoothing, "seed", [-1, 0.5, "0"]),
    (SaliencyMask, "keep", [0, -0.1, 1.5, math.nan, "0.5"]),
    (SaliencyMask, "mu", [0, -1, math.inf, math.nan]),
    (SaliencyMask, "score", ["salun", "", 1, None]),
    (LatentAdversarial, "epsilon", [-1, math.nan, math.inf]),
    (LatentAdversarial, "steps", [0, -3, 2.5, True]),
    (LatentAdversarial, "layer", [0, -1, 1.5, math.nan, "1"]),
    (WeightAveraging, "start", [0, 1.5, -2]),
    (WeightAveraging, "every", [0, 0.5, math.nan]),
]


@pytest.mark.parametrize(
    ("wrapper", "argument", "value"),
    [(wrapper, argument, value) for wrapper, argument, values in BAD_ARGUMENTS for value in values],
)
def test_arguments_that_are_refused(tmp_path, wrapper, argument, value):
    words = [f"{argument} of {wrapper.name}", repr(value), wrapper.formula]
    refused(lambda: wrapper(**{argument: value}), *words)
    refused(lambda: config(tmp_path, step_wrappers={"name": wrapper.name, argument: value}), *words)


def test_every_argument_has_a_bad_value_above():
    tried = {(wrapper, argument) for wrapper, argument, _ in BAD_ARGUMENTS}
    there = {(wrapper, field.name) for wrapper in STEP_WRAPPERS.values() for field in dataclasses.fields(wrapper)}
    assert tried == there


def test_a_layer_beyond_the_model(tmp_path):
    def build(layer: float) -> Any:
        return make_trainer(tmp_path, tiny_model(), step_wrappers={"name": "latent_adversarial", "layer": layer})

    refused(lambda: build(3), "a layer of at most 2", "Got: 3")
    assert build(2).args.step_wrappers["layer"] == 2


# --- Setups ---


SETUPS = {
    "DeepSpeed ZeRO-1 or 2": [DistributedSetup(zero_stage=stage) for stage in (0, 1, 2)],
    "DeepSpeed ZeRO-3": [DistributedSetup(zero_stage=3)],
    "FSDP": [DistributedSetup(fsdp_version=version) for version in (1, 2)],
}


@pytest.mark.parametrize("setup", SETUPS)
@pytest.mark.parametrize("name", STEP_WRAPPERS)
def test_engines_that_own_the_gradients_are_refused(tmp_path, name, setup):
    args, wrapped, plain = config(tmp_path), Methods.parse("npo", wrappers=name), Methods.parse("npo")
    require_setup(args, wrapped, tiny_model(), DistributedSetup())
    for distributed in SETUPS[setup]:
        refused(lambda distributed=distributed: require_setup(args, wrapped, tiny_model(), distributed), name, setup)
        require_setup(args, plain, tiny_model(), distributed)


@pytest.mark.parametrize("name", STEP_WRAPPERS)
def test_they_are_refused_when_the_trainer_is_built(tmp_path, monkeypatch, name):
    sharded = DistributedSetup(fsdp_version=2)
    monkeypatch.setattr(DistributedSetup, "detect", lambda args, accelerator: sharded)
    refused(lambda: make_trainer(tmp_path, tiny_model(), step_wrappers=name), name, "FSDP")
    assert make_trainer(tmp_path, tiny_model()).distributed is sharded


def test_an_attack_through_reentrant_checkpointing(tmp_path):
    def build(use_reentrant: bool, wrapper: str) -> Any:
        return make_trainer(
            tmp_path,
            tiny_model(),
            step_wrappers=wrapper,
            activation_checkpointing=True,
            activation_checkpointing_kwargs={"use_reentrant": use_reentrant},
        )

    refused(lambda: build(True, "latent_adversarial"), "latent_adversarial", "reentrant activation checkpointing")
    build(False, "latent_adversarial")
    build(True, "sam").train()


@pytest.mark.parametrize("optim", ["lomo", "adalomo"])
def test_optimizers_that_step_inside_backward(tmp_path, optim):
    def build() -> Any:
        return make_trainer(tmp_path, tiny_model(), optim=optim, step_wrappers="surgery")

    refused(build, "an optimizer that steps after backward, for surgery", "optim=")


def test_an_average_and_a_best_checkpoint(tmp_path):
    options = dict(
        load_best_model_at_end=True,
        eval_strategy="steps",
        save_strategy="steps",
        eval_steps=1,
        save_steps=1,
        metric_for_best_model="eval_loss",
    )

    def build(wrapper: str) -> Any:
        rows = [{"prompt": "who?", "completion": " you"}]
        return make_trainer(tmp_path, tiny_model(), eval_dataset=rows, step_wrappers=wrapper, **options)

    refused(lambda: build("weight_averaging"), "weight_averaging", "load_best_model_at_end")
    build("sam")
