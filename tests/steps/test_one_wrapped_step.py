"""Steps inside their wrappers against naive loops: the weights move by the oracle's whole-step gradient. In fp64."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn

from fixtures.models import make_trainer, perturbed, tiny_model, weights
from fixtures.one_step import (
    ACCUMULATION,
    BATCH,
    FORGET_ORACLES,
    LR,
    RETAIN_ORACLES,
    StepRows,
    assert_same_change,
    largest_difference,
    rows_of_step,
    spec,
)
from hf_unlearn import UnlearningTrainer
from hf_unlearn.steps import RandomSmoothing
from hf_unlearn.training.method_specs import step_wrappers
from oracles import hidden, naive, steps
from oracles.steps import Vector

LORA = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], lora_dropout=0.1)
FORGET_WEIGHT, RETAIN_WEIGHT = 0.7, 1.3

# The weighted loss of one side: of a model and the rows of a step.
Side = Callable[[nn.Module, StepRows], Tensor]
# Wrappers by name.
Used = dict[str, Any]


def attacked(loss: Side, used: Used, per_token: bool) -> Side:
    """The same forget loss with each row under its own attack, found at the model's present weights."""
    if "latent_adversarial" not in used:
        return loss
    attack = used["latent_adversarial"]
    block = max(1, round(attack.layer * 2)) if attack.layer < 1 else int(attack.layer)

    def under_attack(model: nn.Module, rows: StepRows) -> Tensor:
        # A mean over answer tokens weighs the rows by their length, one over rows does not.
        shares = [len(naive.shift_check(row)) if per_token else 1 for row in rows.forget]
        values = []
        for row in rows.forget:
            delta = steps.latent_attack(model, row, block, attack.epsilon, attack.steps)
            with hidden.hooked(model, block, partial(torch.add, delta)):
                values.append(loss(model, StepRows(forget=[row])))
        return sum(share * value for share, value in zip(shares, values, strict=True)) / sum(shares)

    return under_attack


def forget_gradient(model: nn.Module, loss: Callable[[nn.Module], Tensor], used: Used, step: int) -> Vector:
    """The forget gradient of a step inside sam or random_smoothing, where one of them is used."""
    if "sam" in used:
        return steps.sam_gradient(model, loss, used["sam"].rho)
    if "random_smoothing" in used:
        return steps.smoothed_gradient(model, loss, noises_of_step(model, used["random_smoothing"], step))
    return steps.gradient(model, loss(model))


def noises_of_step(model: nn.Module, smoothing: RandomSmoothing, step: int) -> list[Vector]:
    """The noise of every sample of a step, by the names of the weights."""
    trainable = steps.trainable_weights(model)
    drawn = [list(smoothing.noises(list(trainable.values()), step, sample)) for sample in range(smoothing.samples)]
    return [dict(zip(trainable, each, strict=True)) for each in drawn]


def saliency_mask(model: nn.Module, forget: Side, retain: Side, trainer: UnlearningTrainer, used: Used) -> Vector:
    """The mask from the gradients of both weighted sides over every training pair."""
    rows, saliency = StepRows(), used["saliency"]
    for step in range(len(trainer.train_dataset) // (BATCH * ACCUMULATION)):
        part = rows_of_step(trainer, step)
        rows.forget += part.forget
        rows.retain += part.retain
    forget_side, retain_side = (steps.gradient(model, side(model, rows)) for side in (forget, retain))
    scores = steps.salun_scores(forget_side)
    if saliency.score == "wagle":
        scores = steps.wagle_scores(steps.trainable_weights(model), forget_side, retain_side, saliency.mu)
    return steps.top_share_mask(scores, saliency.keep)


def oracle_run(trainer: UnlearningTrainer, model: nn.Module, forget: Side, retain: Side, used: Used) -> Vector:
    """What gradient descent along the wrapped gradients ends with; `model`, a copy of the policy, is moved."""
    mask = saliency_mask(model, forget, retain, trainer, used) if "saliency" in used else None
    after = []
    for step in range(trainer.args.max_steps):
        rows = rows_of_step(trainer, step)
        gradient = forget_gradient(model, lambda at, rows=rows: forget(at, rows), used, step)
        kept = steps.gradient(model, retain(model, rows))
        if "surgery" in used:
            gradient = steps.projected(gradient, kept)
        with torch.no_grad():
            for name, weight in steps.trainable_weights(model).items():
                change = gradient[name] + kept[name]
                weight -= trainer.args.learning_rate * (change if mask is None else change * mask[name])
        after.append(weights(model))
    if "weight_averaging" not in used:
        return after[-1]
    counted = range(used["weight_averaging"].start - 1, len(after), used["weight_averaging"].every)
    return steps.averaged([after[step] for step in counted])


def sides(forget: str, retain: str, reference: nn.Module) -> tuple[Side, Side]:
    """Both sides of the objective with their weights."""
    return (
        lambda model, rows: FORGET_WEIGHT * FORGET_ORACLES[forget](model, reference, rows, None),
        lambda model, rows: RETAIN_WEIGHT * RETAIN_ORACLES[retain](model, reference, rows, None),
    )


def check(
    folder, specs: Any, forget: str, *, retain="nll", kind="llama", lora=False, idle: str = "", **more: Any
) -> None:
    """A run inside wrappers is the oracle's, and another one than without any of them that is not `idle`."""
    policy = tiny_model(kind, dropout=0.1).double()
    if lora:
        policy = perturbed(get_peft_model(policy, LORA), scale=0.3)
    reference = perturbed(policy)
    before, start = copy.deepcopy(policy).eval(), weights(policy)
    trainer = make_trainer(
        folder,
        policy,
        per_device_train_batch_size=BATCH,
        gradient_accumulation_steps=ACCUMULATION,
        forget_loss=spec(forget),
        retain_loss=spec(retain),
        forget_weight=FORGET_WEIGHT,
        retain_weight=RETAIN_WEIGHT,
        ref_model=copy.deepcopy(reference) if forget in ("npo", "dpo") else None,
        step_wrappers=specs,
        **{"learning_rate": LR, "max_steps": 1} | more,
    )
    wrappers = {wrapper.name: wrapper for wrapper in step_wrappers(specs)}

    def expected(used: Used) -> Vector:
        forget_side, retain_side = sides(forget, retain, reference)
        forget_side = attacked(forget_side, used, per_token=forget == "grad_ascent")
        return oracle_run(trainer, copy.deepcopy(before), forget_side, retain_side, used)

    right = expected(wrappers)
    for name in wrappers:
        without = expected({other: wrapper for other, wrapper in wrappers.items() if other != name})
        difference = largest_difference(right, without)
        assert difference == 0 if name == idle else difference > 1e-6, name
    trainer.train()
    assert trainer.state.global_step == trainer.args.max_steps
    change = {name: each - start[name] for name, each in right.items()}
    # Llama's norms are in fp32 whatever the model is in, and the attack's steps double what they round.
    rounded = kind == "llama" and "latent_adversarial" in wrappers
    assert_same_change(trainer.model, start, change, rtol=1e-5 if rounded else 1e-7)


SAM = {"name": "sam", "rho": 0.05}
SMOOTHING = {"name": "random_smoothing", "sigma": 0.01, "samples": 2, "seed": 3}
ATTACK = {"name": "latent_adversarial", "epsilon": 1.5, "steps": 3}
SALIENCY = {"name": "saliency", "keep": 0.2}
WAGLE = {"name": "saliency", "score": "wagle", "keep": 0.2, "mu": 2.0}
SURGERY = {"name": "surgery"}
AVERAGING = {"name": "weight_averaging"}


def names(specs: Any) -> str:
    return "+".join(each.get("score", each["name"]) for each in specs)


@pytest.mark.parametrize(
    ("kind", "forget", "lora"),
    [
        ("llama", "npo", False),
        ("opt", "npo", True),
        ("opt", "simnpo", False),
        ("llama", "simnpo", True),
        ("opt", "grad_ascent", False),
        ("llama", "grad_ascent", True),
    ],
)
@pytest.mark.parametrize("wrapper", [SAM, SMOOTHING, ATTACK, SALIENCY, WAGLE], ids=lambda each: names([each]))
def test_a_step_inside_a_wrapper_is_the_oracles(tmp_path, wrapper, kind, forget, lora):
    check(tmp_path, [wrapper], forget, kind=kind, lora=lora)


@pytest.mark.parametrize(("kind", "lora"), [("llama", False), ("opt", True)])
@pytest.mark.parametrize(
    "specs",
    [[SURGERY], [SURGERY, SAM], [SALIENCY, SAM], [ATTACK, SAM], [SMOOTHING, SALIENCY, ATTACK], [WAGLE, SMOOTHING]],
    ids=names,
)
def test_wrappers_together_are_the_oracles(tmp_path, specs, kind, lora):
    check(tmp_path, specs, "grad_ascent", kind=kind, lora=lora)


@pytest.mark.parametrize(
    "specs",
    [[AVERAGING], [AVERAGING | {"start": 2}], [AVERAGING | {"every": 2}], [SMOOTHING, SALIENCY, AVERAGING]],
    ids=["all", "from the second", "every other", "smoothing+saliency"],
)
def test_three_steps_are_the_oracles(tmp_path, specs):
    check(tmp_path, specs, "grad_ascent", max_steps=3, learning_rate=0.01)


@pytest.mark.parametrize("layer", [1, 2, 0.9])
def test_the_attack_is_at_its_layer(tmp_path, layer):
    check(tmp_path, [ATTACK | {"layer": layer}], "simnpo")


@pytest.mark.parametrize("forget", ["dpo", "random_mismatch"])
def test_rows_of_every_role_are_on_their_side(tmp_path, forget):
    check(tmp_path, [SAM], forget, retain="answer_preservation")


def test_without_a_conflict_surgery_changes_nothing(tmp_path):
    # Retain answers under forget prompts pull as the retain rows do.
    check(tmp_path, [SURGERY], "random_mismatch", idle="surgery")


@pytest.mark.parametrize("inner", ["sam", "random_smoothing"])
def test_the_first_of_sam_and_smoothing_is_innermost(tmp_path, inner):
    specs = [SAM, SMOOTHING] if inner == "sam" else [SMOOTHING, SAM]
    policy = tiny_model("opt").double()
    before, start = copy.deepcopy(policy).eval(), weights(policy)
    trainer = make_trainer(
        tmp_path, policy, learning_rate=LR, forget_loss="grad_ascent", retain_loss="none", step_wrappers=specs
    )
    rows = rows_of_step(trainer)
    used = {wrapper.name: wrapper for wrapper in step_wrappers(specs)}

    def loss(model: nn.Module) -> Tensor:
        return naive.grad_ascent(model, rows.forget)

    found = {}
    noises = noises_of_step(before, used["random_smoothing"], 0)
    rho = used["sam"].rho
    per_sample = []
    for noise in noises:
        with steps.moved(before, noise):
            per_sample.append(steps.sam_gradient(before, loss, rho))
    found["sam"] = steps.averaged(per_sample)
    smoothed = steps.smoothed_gradient(before, loss, noises)
    up = {name: rho / steps.inner(smoothed, smoothed) ** 0.5 * each for name, each in smoothed.items()}
    with steps.moved(before, up):
        found["random_smoothing"] = steps.smoothed_gradient(before, loss, noises)
    assert largest_difference(found["sam"], found["random_smoothing"]) > 1e-6
    trainer.train()
    assert_same_change(policy, start, {name: -LR * each for name, each in found[inner].items()}, rtol=1e-7)
