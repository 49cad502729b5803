"""Training steps under the row bound against naive loops: which rows push, and that the others do not. No trajectory.

A row at the bound keeps its place in the mean and gives no gradient, whatever the forget loss reads.
"""

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fixtures.models import item_at, make_trainer, perturbed, step_logs, tiny_model, train_sets, weights
from fixtures.one_step import (
    ACCUMULATION,
    BATCH,
    FORGET_ORACLES,
    FORGET_WITH_REFERENCE,
    LR,
    PULL,
    StepRows,
    assert_same_change,
    largest_difference,
    losses,
    oracle_loss,
    rows_of_step,
    run_and_expect,
    spec,
    stepped,
)
from hf_unlearn import UnlearningTrainer
from oracles import levels, naive

MIXED = ("grad_ascent", "npo", "simnpo", "dpo", "idk", "random_mismatch")

Level = Callable[[nn.Module, StepRows, UnlearningTrainer], list[float]]


def check_bound(
    folder,
    bound: Any,
    level: Level,
    *,
    terms: Sequence[str] = MIXED,
    kind: str = "llama",
    seed: int = 0,
    **options: Any,
) -> tuple[UnlearningTrainer, list[bool]]:
    """A step of forget terms under a bound, against the oracle with the rows active that are below `level`.

    With `forget_bound_sides` among the options, the oracle pulls the others back to it.
    """
    policy = tiny_model(kind, seed=seed).double()
    before, start = copy.deepcopy(policy), weights(policy)
    forget, reference = {name: PULL.get(name, 1.0) for name in terms}, perturbed(policy)
    trainer = make_trainer(
        folder,
        policy,
        per_device_train_batch_size=BATCH,
        gradient_accumulation_steps=ACCUMULATION,
        learning_rate=LR,
        **losses(forget, {"nll": 1.0}),
        forget_nll_bound=bound,
        ref_model=copy.deepcopy(reference) if FORGET_WITH_REFERENCE.intersection(terms) else None,
        **options,
    )
    rows = rows_of_step(trainer)
    # A ref_model is the model before unlearning, on which levels of rows are measured.
    bounds = level(reference if FORGET_WITH_REFERENCE.intersection(terms) else before, rows, trainer)
    nll = [float(-naive.token_logps(before, row).detach().mean()) for row in rows.forget]
    active = [value < limit for value, limit in zip(nll, bounds, strict=True)]
    sides = (options.get("forget_weight", 1.0), 1.0)
    bounded, unbounded = (
        oracle_loss(forget, {"nll": 1.0}, reference, sides=sides, active=each) for each in (active, None)
    )

    def loss(model: nn.Module, rows: StepRows) -> Tensor:
        if "forget_bound_sides" not in options:
            return bounded(model, rows)
        return bounded(model, rows) + sides[0] * levels.pull_back(model, rows.forget, bounds)

    other = None if all(active) else stepped(before, unbounded(before, rows), LR)
    expected = run_and_expect(trainer, before, loss)
    assert other is None or largest_difference(weights(before), other) > 1e-5, "the held rows would not have pushed"
    assert_same_change(policy, start, expected, rtol=1e-7)
    assert step_logs(trainer)[0]["bound_share"] == pytest.approx(active.count(False) / len(active))
    return trainer, active


def first_level(model: nn.Module, rows: StepRows) -> float:
    """A level between the lowest of a step's four forget rows and the rest: a micro-batch has both kinds."""
    nll = sorted(float(-naive.token_logps(model, row).detach().mean()) for row in rows.forget)
    return (nll[0] + nll[1]) / 2


@pytest.fixture(scope="module")
def shown(tmp_path_factory) -> StepRows:
    """The rows of a run's first step: their order is a function of the seed alone, so any trainer shows them."""
    trainer = make_trainer(tmp_path_factory.mktemp("shown"), tiny_model(), forget_loss="idk", retain_loss="nll")
    return rows_of_step(trainer)


# Every loss on one of the two models, in turn: which rows push is decided after the forward.
ALONE = [((name,), ("llama", "opt")[place % 2]) for place, name in enumerate(FORGET_ORACLES)]


@pytest.mark.parametrize(
    ("terms", "kind"),
    [(MIXED, "llama"), (MIXED, "opt"), *ALONE],
    ids=lambda each: each if isinstance(each, str) else "+".join(each),
)
def test_only_rows_below_the_bound_push(tmp_path, shown, terms, kind):
    bound = first_level(tiny_model(kind).double(), shown)
    trainer, active = check_bound(tmp_path, bound, lambda *_: [bound] * 4, terms=terms, kind=kind)
    assert sorted(active) == [False, False, False, True]
    assert step_logs(trainer)[0]["forget_nll"] > 0


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
    assert trainer.baseline.bound == pytest.approx(level(perturbed(tiny_model().double()), None, trainer)[0], rel=1e-6)


def test_holdout_quantiles_match_ranks(tmp_path):
    def level(model: nn.Module, rows: StepRows, trainer: UnlearningTrainer) -> list[float]:
        unseen = torch.stack([-naive.token_logps(model, row).mean() for row in trainer.train_sets.holdout])
        forget = torch.stack([-naive.token_logps(model, row).mean() for row in trainer.train_sets.forget])
        # The least memorised of N rows, rank N - 1, is held at the unseen rows' quantile (N - 1/2) / N.
        ranks = [(int((forget < forget[index]).sum()) + 0.5) / len(forget) for index in rows.index]
        return [float(torch.quantile(unseen.detach(), rank)) for rank in ranks]

    trainer, active = check_bound(tmp_path, "holdout_quantiles", level, seed=9)
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
        items = [item_at(trainer, position) for position in range(4)]
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


@pytest.mark.parametrize("terms", [MIXED, ("rmu",), ("max_entropy",), ("wga", "jsd", "flat")], ids="+".join)
def test_rows_past_the_bound_are_pulled_back_where_it_has_both_sides(tmp_path, shown, terms):
    bound = first_level(tiny_model().double(), shown)
    sides = {"forget_bound_sides": "both", "forget_weight": 0.6}
    trainer, active = check_bound(tmp_path, bound, lambda *_: [bound] * 4, terms=terms, **sides)
    assert sorted(active) == [False, False, False, True]
    assert step_logs(trainer)[0]["forget/pull_back"] > 1e-3
    assert trainer.record.objective.bound["sides"] == "both"


def test_losses_of_hidden_states_are_pulled_back_by_the_log_probs(tmp_path, shown):
    bound, moved = first_level(tiny_model().double(), shown), {}
    for sides in ("above", "both"):
        policy = tiny_model().double()
        start = weights(policy)
        terms = losses({"rmu": 1.0}, {"hidden": 1.0})
        make_trainer(tmp_path, policy, **terms, forget_nll_bound=bound, forget_bound_sides=sides).train()
        moved[sides] = not torch.equal(policy.lm_head.weight, start["lm_head.weight"])
    assert moved == {"above": False, "both": True}


@pytest.mark.parametrize("forget", list(FORGET_ORACLES))
def test_with_every_row_at_the_bound_nothing_moves(tmp_path, forget):
    moved = {}
    for bound in (None, 1e-3):
        policy = tiny_model().double()
        start = weights(policy)
        trainer = make_trainer(tmp_path, policy, forget_loss=spec(forget), retain_loss="none", forget_nll_bound=bound)
        trainer.train()
        moved[bound] = [name for name, weight in policy.named_parameters() if not torch.equal(weight, start[name])]
    assert step_logs(trainer)[0]["bound_share"] == 1.0
    assert step_logs(trainer)[0]["grad_norm"] == 0.0
    assert len(moved[None]) > 5 and moved[1e-3] == []
