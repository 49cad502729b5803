"""A training step against naive loops: the weights move by exactly the formula's gradient. Not a test of trajectories.

The trainer's step runs padded batches, accumulation, slices by role and hand-written gradients; the oracle runs one
row at a time through autograd. Most models are in fp64, where the two agree to seven digits and more, and any other
normalisation, mask or reference shows.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn

from fixtures_models import make_trainer, perturbed, step_logs, tiny_model, train_sets, weights
from hf_unlearn import UnlearningTrainer
from oracles import naive

LR = 0.05
BATCH, ACCUMULATION = 2, 2


@dataclass
class StepRows:
    """The rows of one optimizer step by role, and the forget row of the step to which each mismatch row belongs."""

    forget: list[naive.Row] = field(default_factory=list)
    retain: list[naive.Row] = field(default_factory=list)
    alternate: list[naive.Row] = field(default_factory=list)
    mismatch: list[naive.Row] = field(default_factory=list)
    mismatch_sources: list[int] = field(default_factory=list)
    index: list[int] = field(default_factory=list)


def rows_of_step(trainer: UnlearningTrainer, step: int = 0) -> StepRows:
    """What the trainer reads in a step of the first epoch: its sampler is sequential."""
    rows, size = StepRows(), BATCH * ACCUMULATION
    for source, position in enumerate(range(step * size, (step + 1) * size)):
        item = trainer.train_dataset[position]
        rows.forget.append(item)
        rows.index.append(item["row"])
        rows.retain += item["retain"]
        rows.alternate += [item["alternate"]] if "alternate" in item else []
        rows.mismatch += item["mismatch"]
        rows.mismatch_sources += [source] * len(item["mismatch"])
    return rows


Oracle = Callable[[nn.Module, nn.Module, StepRows, list[bool] | None], Tensor]

FORGET_ORACLES: dict[str, Oracle] = {
    "grad_ascent": lambda m, ref, rows, active: naive.grad_ascent(m, rows.forget, active),
    "npo": lambda m, ref, rows, active: naive.npo(m, ref, rows.forget, 0.07, active),
    "simnpo": lambda m, ref, rows, active: naive.simnpo(m, rows.forget, 0.6, 4.0, active),
    "dpo": lambda m, ref, rows, active: naive.dpo(m, ref, rows.forget, rows.alternate, 0.05, active),
    "idk": lambda m, ref, rows, active: naive.idk(m, rows.alternate, active),
    "random_mismatch": lambda m, ref, rows, active: naive.random_mismatch(
        m, rows.mismatch, active, rows.mismatch_sources
    ),
}
RETAIN_ORACLES: dict[str, Oracle] = {
    "nll": lambda m, ref, rows, active: naive.retain_nll(m, rows.retain),
    "kl": lambda m, ref, rows, active: naive.retain_kl(m, ref, rows.retain),
    "none": lambda m, ref, rows, active: torch.zeros((), dtype=torch.float64),
}
ARGUMENTS: dict[str, dict[str, float]] = {
    "npo": {"beta": 0.07},
    "simnpo": {"beta": 0.6, "delta": 4.0},
    "dpo": {"beta": 0.05},
    "random_mismatch": {"k": 3},
}
WITH_REFERENCE = {"npo", "dpo", "kl"}


def run_and_expect(
    trainer: UnlearningTrainer, before: nn.Module, loss: Callable[[nn.Module, StepRows], Tensor]
) -> dict[str, Tensor]:
    """Train, and return the weight changes that plain gradient descent on `loss` makes over the same steps."""
    start = weights(before)
    for step in range(trainer.args.max_steps):
        stepped = naive.sgd_step_weights(before, loss(before, rows_of_step(trainer, step)), trainer.args.learning_rate)
        before.load_state_dict(stepped, strict=False)
    trainer.train()
    assert trainer.state.global_step == trainer.args.max_steps
    return {name: weight.detach() - start[name] for name, weight in before.named_parameters()}


def assert_same_change(after: nn.Module, start: dict[str, Tensor], expected: dict[str, Tensor], rtol: float) -> None:
    """The change of every weight, element by element and in the norm, against the expected one, which is not zero."""
    assert start.keys() == expected.keys()
    largest = max(float(change.abs().max()) for change in expected.values())
    assert largest > 1e-4, "the oracle's step moves nothing: any other step that moves nothing would agree"
    for name, weight in after.named_parameters():
        change = weight.detach() - start[name]
        torch.testing.assert_close(
            change, expected[name], rtol=rtol, atol=rtol * largest, msg=lambda m, n=name: f"{n}: {m}"
        )
        norm = expected[name].norm()
        assert abs(change.norm() - norm) <= rtol * (norm + largest), name


def spec(name: str, weight: float = 1.0) -> dict[str, Any]:
    return {"name": name, "weight": weight, **ARGUMENTS.get(name, {})}


def check_step(
    folder, kind: str, forget: dict[str, float], retain: dict[str, float], dtype=torch.float64, rtol=1e-7, **options
) -> UnlearningTrainer:
    """One step of weighted terms with side weights 0.7 and 1.3, from a policy that is not its reference."""
    policy = tiny_model(kind, dropout=0.1).to(dtype)
    reference = perturbed(policy)
    before = copy.deepcopy(policy).eval()
    start = weights(policy)
    needs_reference = bool(WITH_REFERENCE & (forget.keys() | retain.keys()))
    trainer = make_trainer(
        folder,
        policy,
        per_device_train_batch_size=BATCH,
        gradient_accumulation_steps=ACCUMULATION,
        learning_rate=LR,
        forget_loss=[spec(name, weight) for name, weight in forget.items()],
        retain_loss=[spec(name, weight) for name, weight in retain.items()] or "none",
        forget_weight=0.7,
        retain_weight=1.3,
        ref_model=copy.deepcopy(reference) if needs_reference else None,
        **options,
    )

    def loss(against: nn.Module) -> Callable[[nn.Module, StepRows], Tensor]:
        return lambda model, rows: (
            0.7 * sum(w * FORGET_ORACLES[name](model, against, rows, None) for name, w in forget.items())
            + 1.3 * sum(w * RETAIN_ORACLES[name](model, against, rows, None) for name, w in retain.items())
        )

    rows = rows_of_step(trainer)
    if needs_reference:
        right, wrong = (
            naive.sgd_step_weights(before, loss(against)(before, rows), LR) for against in (reference, before)
        )
        assert any(not torch.allclose(right[n], wrong[n], rtol=0, atol=1e-5) for n in right), "the reference is idle"
    value = float(loss(reference)(before, rows).detach())
    expected = run_and_expect(trainer, before, loss(reference))
    assert_same_change(policy, start, expected, rtol)
    assert step_logs(trainer)[0]["loss"] == pytest.approx(value, rel=max(rtol, 1e-5))
    return trainer


@pytest.mark.parametrize(("kind", "retain"), [("llama", "nll"), ("llama", "kl"), ("llama", "none"), ("opt", "kl")])
@pytest.mark.parametrize("forget", list(FORGET_ORACLES))
def test_a_step_of_each_loss_is_its_formulas_gradient(tmp_path, kind, forget, retain):
    check_step(tmp_path, kind, {forget: 1.0}, {} if retain == "none" else {retain: 1.0})


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
    trainer = check_step(
        tmp_path, "llama", {"npo": 0.3, "simnpo": 1.7, "random_mismatch": 0.4}, {"nll": 0.6, "kl": 2.5}
    )
    log = step_logs(trainer)[0]
    forget = 0.3 * log["forget/npo"] + 1.7 * log["forget/simnpo"] + 0.4 * log["forget/random_mismatch"]
    retain = 0.6 * log["retain/nll"] + 2.5 * log["retain/kl"]
    assert log["loss"] == pytest.approx(0.7 * forget + 1.3 * retain, rel=1e-5)


@pytest.mark.parametrize("kind", ["llama", "opt"])
def test_a_step_in_single_precision(tmp_path, kind):
    check_step(tmp_path, kind, {"grad_ascent": 1.0, "npo": 1.0}, {"kl": 1.0}, dtype=torch.float32, rtol=1e-4)


@pytest.mark.parametrize("retain_ratio", [0.5, 2.0])
def test_a_step_with_another_number_of_retain_rows(tmp_path, retain_ratio):
    trainer = check_step(tmp_path, "llama", {"dpo": 1.0}, {"kl": 1.0}, retain_ratio=retain_ratio)
    assert len(rows_of_step(trainer).retain) == 4 * retain_ratio


# --- Adapters: their own weights move, against the model as it was given ---

LORA = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], lora_dropout=0.1)


def check_two_adapter_steps(trainer: UnlearningTrainer, reference: nn.Module, wrong: nn.Module | None = None) -> None:
    """Two steps of npo + kl, since at the first the policy is its reference; `wrong` is one that must not agree."""
    before, start = copy.deepcopy(trainer.model).eval(), weights(trainer.model)

    def loss(against: nn.Module) -> Callable[[nn.Module, StepRows], Tensor]:
        return lambda model, rows: (
            naive.npo(model, against, rows.forget, 0.07) + naive.retain_kl(model, against, rows.retain)
        )

    if wrong is not None:
        rows = rows_of_step(trainer)
        right_step, wrong_step = (
            naive.sgd_step_weights(before, loss(against)(before, rows), 1.0) for against in (reference, wrong)
        )
        assert any(not torch.allclose(right_step[n], wrong_step[n], rtol=0, atol=1e-3) for n in right_step)
    expected = run_and_expect(trainer, before, loss(reference))
    assert {name for name, change in expected.items() if change.any()} == {n for n in expected if "lora_" in n}
    assert_same_change(trainer.model, start, expected, rtol=1e-7)


def adapter_trainer(folder, model: nn.Module, kind: str = "auto", **options: Any) -> UnlearningTrainer:
    return make_trainer(
        folder,
        model,
        per_device_train_batch_size=BATCH,
        gradient_accumulation_steps=ACCUMULATION,
        max_steps=2,
        learning_rate=LR,
        forget_loss=spec("npo"),
        retain_loss="kl",
        reference=kind,
        **options,
    )


@pytest.mark.parametrize("kind", ["llama", "opt"])
@pytest.mark.parametrize("reference", ["auto", "adapter", "copy"])
def test_steps_of_a_fresh_adapter(tmp_path, kind, reference):
    base = tiny_model(kind).double()
    trainer = adapter_trainer(tmp_path, copy.deepcopy(base), reference, peft_config=LORA)
    check_two_adapter_steps(trainer, base)


def trained_adapter(scale: float = 0.3) -> nn.Module:
    """A PeftModel whose adapter already changes the output."""
    model = get_peft_model(tiny_model().double(), LORA)
    return perturbed(model, scale=scale)


@pytest.mark.parametrize("reference", ["auto", "adapter", "copy"])
def test_a_trained_adapter_is_compared_with_the_model_as_given(tmp_path, reference):
    model = trained_adapter()
    given, base = copy.deepcopy(model), copy.deepcopy(model).unload()
    check_two_adapter_steps(adapter_trainer(tmp_path, model, reference), given, wrong=base)


def test_a_given_reference_is_used_beside_an_adapter(tmp_path):
    model = trained_adapter()
    reference = perturbed(tiny_model().double(), scale=0.05)
    trainer = adapter_trainer(tmp_path, model, ref_model=copy.deepcopy(reference))
    check_two_adapter_steps(trainer, reference, wrong=copy.deepcopy(model))


# --- The row bound ---


def check_bound(
    folder, bound: Any, level: Callable[[nn.Module, StepRows, UnlearningTrainer], list[float]], seed: int = 0
):
    """A step of every forget term under a bound, against the oracle with the rows active that are below `level`."""
    policy = tiny_model(seed=seed).double()
    before, start = copy.deepcopy(policy), weights(policy)
    terms = ["grad_ascent", "npo", "simnpo", "dpo", "idk", "random_mismatch"]
    reference = perturbed(policy)
    trainer = make_trainer(
        folder,
        policy,
        per_device_train_batch_size=BATCH,
        gradient_accumulation_steps=ACCUMULATION,
        learning_rate=LR,
        forget_loss=[spec(name) for name in terms],
        retain_loss="nll",
        forget_nll_bound=bound,
        ref_model=copy.deepcopy(reference),
    )
    rows = rows_of_step(trainer)
    levels = level(before, rows, trainer)
    nll = [float(-naive.token_logps(before, row).detach().mean()) for row in rows.forget]
    active = [value < bound for value, bound in zip(nll, levels, strict=True)]

    def loss(model: nn.Module, rows: StepRows) -> Tensor:
        forget = sum(FORGET_ORACLES[name](model, reference, rows, active) for name in terms)
        return forget + naive.retain_nll(model, rows.retain)

    expected = run_and_expect(trainer, before, loss)
    assert_same_change(policy, start, expected, rtol=1e-7)
    assert step_logs(trainer)[0]["bound_share"] == pytest.approx(active.count(False) / len(active))
    return trainer, active


def middle(model: nn.Module, rows: StepRows) -> float:
    """A level between the second and the third of a step's four forget rows."""
    nll = sorted(float(-naive.token_logps(model, row).detach().mean()) for row in rows.forget)
    return (nll[1] + nll[2]) / 2


def test_only_rows_below_the_bound_push(tmp_path):
    # The order of the rows is a function of the seed alone, so a trainer that is never trained shows them.
    shown = make_trainer(tmp_path / "shown", tiny_model(), forget_loss="idk", retain_loss="nll")
    bound = middle(tiny_model().double(), rows_of_step(shown))
    _, active = check_bound(tmp_path, bound, lambda *_: [bound] * 4)
    assert sorted(active) == [False, False, True, True]


def test_without_a_bound_every_row_pushes(tmp_path):
    _, active = check_bound(tmp_path, None, lambda *_: [math.inf] * 4)
    assert active == [True] * 4


def test_log_vocab_is_the_level_of_a_uniform_guess(tmp_path):
    _, active = check_bound(tmp_path, "log_vocab", lambda *_: [math.log(261)] * 4, seed=7)
    assert set(active) == {True, False}


def test_holdout_is_the_mean_nll_of_unseen_rows(tmp_path):
    def level(model: nn.Module, rows: StepRows, trainer: UnlearningTrainer) -> list[float]:
        nll = [-naive.token_logps(model, row).mean() for row in trainer.train_sets.holdout]
        return [float(torch.stack(nll).detach().mean())] * 4

    trainer, active = check_bound(tmp_path, "holdout", level)
    assert set(active) == {True, False}
    assert trainer.baseline.bound == pytest.approx(level(tiny_model().double(), None, trainer)[0], rel=1e-6)


def test_holdout_quantiles_match_ranks(tmp_path):
    def level(model: nn.Module, rows: StepRows, trainer: UnlearningTrainer) -> list[float]:
        unseen = torch.stack([-naive.token_logps(model, row).mean() for row in trainer.train_sets.holdout])
        forget = torch.stack([-naive.token_logps(model, row).mean() for row in trainer.train_sets.forget])
        # The least memorised of N rows, rank N - 1, is held at the unseen rows' quantile (N - 1/2) / N.
        ranks = [(int((forget < forget[index]).sum()) + 0.5) / len(forget) for index in rows.index]
        return [float(torch.quantile(unseen.detach(), rank)) for rank in ranks]

    trainer, active = check_bound(tmp_path, "holdout_quantiles", level, seed=11)
    assert set(active) == {True, False}
    assert len(set(trainer.baseline.bound.tolist())) == len(trainer.train_sets.forget)


def test_bounded_rows_come_back_when_they_fall_below(tmp_path):
    sets = train_sets()
    sets["forget"] = sets["forget"].select(range(4))  # every step holds all of them
    policy = tiny_model().double()
    before, start = copy.deepcopy(policy), weights(policy)
    trainer = make_trainer(
        tmp_path,
        policy,
        sets=sets,
        max_steps=4,
        learning_rate=0.1,
        forget_loss="grad_ascent",
        retain_loss="nll",
        retain_weight=2.0,
        forget_nll_bound=5.8,
    )
    shares = []
    for epoch in range(4):
        trainer.train_dataset.set_epoch(epoch)
        items = [trainer.train_dataset[position] for position in range(4)]
        active = naive.active_rows(before, items, 5.8)
        shares.append(active.count(False) / 4)
        loss = naive.grad_ascent(before, items, active)
        loss = loss + 2 * naive.retain_nll(before, [row for item in items for row in item["retain"]])
        before.load_state_dict(naive.sgd_step_weights(before, loss, 0.1), strict=False)
    trainer.train_dataset.set_epoch(0)
    trainer.train()
    assert [log["bound_share"] for log in step_logs(trainer)] == shares
    assert max(shares) == 1 and shares[-1] < 1, "no row came back"
    expected = {name: weight.detach() - start[name] for name, weight in before.named_parameters()}
    assert_same_change(policy, start, expected, rtol=1e-7)


def test_with_every_row_at_the_bound_nothing_moves(tmp_path):
    policy = tiny_model().double()
    start = weights(policy)
    trainer = make_trainer(tmp_path, policy, retain_loss="none", forget_nll_bound=1e-3, forget_loss="grad_ascent")
    trainer.train()
    assert step_logs(trainer)[0]["bound_share"] == 1.0
    assert step_logs(trainer)[0]["grad_norm"] == 0.0
    assert all(torch.equal(weight, start[name]) for name, weight in policy.named_parameters())
