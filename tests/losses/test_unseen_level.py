"""`unseen_level` and the bound's other side: numbers by hand, both signs, the ramp, and steps beside naive loops."""

import copy
import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.nn.functional import huber_loss

from fixtures.examples import assert_user_error
from fixtures.levels import made_levels, nll_of_rows, set_levels
from fixtures.models import make_trainer, perturbed, step_logs, tiny_model, weights
from fixtures.one_step import (
    ACCUMULATION,
    BATCH,
    LR,
    StepRows,
    assert_same_change,
    rows_of_step,
    run_and_expect,
)
from fixtures.scores import double, forget, rows
from hf_unlearn import UnlearningTrainer
from hf_unlearn.losses import UnseenLevel
from hf_unlearn.losses.pull_back import PullBack
from hf_unlearn.model.scoring import Scores
from hf_unlearn.training.step.row_levels import token_levels
from oracles import levels as oracle
from oracles import naive, steps

LN2 = math.log(2)


def two_rows(**known: Any) -> Scores:
    """Rows of two tokens (1/2, 1/4) and of one (1/8): nll 1.5 ln 2 and 3 ln 2."""
    return forget(double([0.5, 0.25, 0.125]).log().requires_grad_(), lengths=[2, 1], **known)


def values_and_slopes(loss: Any, scores: Scores) -> tuple[Tensor, Tensor]:
    """A loss's values, and the slope of each row by its nll, which the first token of the row shows."""
    values = loss(scores)
    (gradient,) = torch.autograd.grad(values.sum(), scores.forget.logps)
    return values.detach(), -(gradient * scores.forget.lengths[scores.forget.row_of_token()])


def at(scores: Scores, progress: float) -> Scores:
    return Scores(forget=scores.forget, progress=progress)


# --- Numbers ---


def test_rows_on_both_sides_of_their_level_by_hand():
    scores = at(two_rows(level=double([1.5 * LN2 + 0.3, 2.0])), 1.0)
    values, slopes = values_and_slopes(UnseenLevel(token_weight=0), scores)
    # .3 below: within delta, the square. 3 ln 2 - 2 = .079 above: within it, too, on the other side.
    torch.testing.assert_close(values, double([0.3**2 / 2, (3 * LN2 - 2) ** 2 / 2]))
    torch.testing.assert_close(slopes, double([-0.3, -0.3, 3 * LN2 - 2]))
    far = at(two_rows(level=double([1.5 * LN2 + 4, 3 * LN2 - 1])), 1.0)
    values, slopes = values_and_slopes(UnseenLevel(delta=0.25, token_weight=0), far)
    torch.testing.assert_close(values, double([0.25 * 4 - 0.25**2 / 2, 0.25 * 1 - 0.25**2 / 2]))
    torch.testing.assert_close(slopes, double([-0.25, -0.25, 0.25]))


def test_at_the_level_nothing_pulls():
    values, slopes = values_and_slopes(UnseenLevel(token_weight=0), two_rows(level=double([1.5 * LN2, 3 * LN2])))
    assert values.abs().max() < 1e-30 and slopes.abs().max() < 1e-15


@pytest.mark.parametrize(
    ("ramp", "progress", "rho"), [(0.5, 0.25, 0.5), (0.5, 0.5, 1), (0.5, 0.75, 1), (1.0, 0.01, 0.01), (0.0, 0.01, 1)]
)
def test_the_level_rises_over_the_ramp(ramp, progress, rho):
    loss = UnseenLevel(ramp=ramp, delta=10.0, token_weight=0)
    assert loss.reached(progress) == pytest.approx(rho)
    values = loss(at(two_rows(level=double([4.0, 1.0])), progress))
    torch.testing.assert_close(values, double([(1.5 * LN2 - 4 * rho) ** 2 / 2, (3 * LN2 - rho) ** 2 / 2]))


def test_the_token_term_by_hand():
    # Tokens of 1 ln 2 and 2 ln 2, and one of 3 ln 2; half of the way to levels of 0 and 6 ln 2, and of 6 ln 2.
    scores = at(two_rows(level=double([3 * LN2, 6 * LN2]), token_level=double([0.0, 6 * LN2, 6 * LN2])), 0.25)
    values = UnseenLevel(token_weight=0.3)(scores)
    each = 0.5 * LN2 - 0.5**2 / 2  # of both: one is led from ln 2 to 0, the other from 2 ln 2 to 3 ln 2
    torch.testing.assert_close(values, double([0.3 * each, 0.0]))
    (gradient,) = torch.autograd.grad(values.sum(), scores.forget.logps)
    pull = 0.3 * 0.5 / 2
    torch.testing.assert_close(gradient, double([-pull, pull, 0.0]))
    assert UnseenLevel().needs.token_levels and not UnseenLevel(token_weight=0).needs.token_levels


def test_tokens_that_are_not_told_apart_take_the_cheapest_way_to_their_levels():
    """Every other pairing of a row's tokens and levels costs as much or more."""
    draw = torch.Generator().manual_seed(0)
    logps = -4 * torch.rand(6, generator=draw).double()
    ascending = [[1.5], (4 * torch.rand(5, generator=draw)).sort()[0].tolist()]
    known = token_levels(made_levels([0.0, 0.0], ascending), rows(logps, lengths=[1, 5]))
    term = UnseenLevel()(forget(logps, lengths=[1, 5], level=double([0.0, 0.0]), token_level=known))
    term = term - UnseenLevel(token_weight=0)(forget(logps, lengths=[1, 5], level=double([0.0, 0.0])))
    pairings = [torch.tensor(ascending[1])[list(order)] for order in itertools.permutations(range(5))]
    costs = [huber_loss(-logps[1:], levels.double(), delta=0.5) for levels in pairings]
    torch.testing.assert_close(term, torch.stack([huber_loss(-logps[0], double(1.5), delta=0.5), min(costs)]))


def test_tokens_that_are_told_apart_keep_their_levels_in_whatever_batch():
    made = made_levels([2.0, 3.0], [[1.0, 3.0], [4.0, 2.0, 3.0]], ordered=True)
    batch = rows(-torch.ones(5), lengths=[3, 2], row=torch.tensor([1, 0]))  # of the set's second row, and its first
    assert token_levels(made, batch).tolist() == [4.0, 2.0, 3.0, 1.0, 3.0]


def test_the_other_side_of_the_bound_by_hand():
    scores = two_rows(bound=double([1.5 * LN2 + 0.1, 3 * LN2 - 0.2]))
    values, slopes = values_and_slopes(PullBack(), scores)
    torch.testing.assert_close(values, double([0.0, 0.2**2 / 2]))
    torch.testing.assert_close(slopes, double([0.0, 0.0, 0.2]))
    values, slopes = values_and_slopes(PullBack(), two_rows(bound=0.5))  # one number for all rows
    torch.testing.assert_close(slopes, double([0.5, 0.5, 0.5]))
    values, slopes = values_and_slopes(PullBack(), two_rows())
    assert not values.any() and not slopes.any()


# --- Steps beside naive loops ---

STEPS = 3  # of four rows each: an epoch
RAMP = 2 / 3
LORA = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"])
UNKNOWN = dict.fromkeys(range(12), 5.0)  # levels of a trainer that shows its rows; the test's own take their place


def level_trainer(folder, policy: nn.Module, **options: Any) -> UnlearningTrainer:
    """Three steps of four rows, all rows of an epoch."""
    arguments = dict(
        per_device_train_batch_size=BATCH,
        gradient_accumulation_steps=ACCUMULATION,
        learning_rate=LR,
        max_steps=STEPS,
        retain_loss="nll",
        levels=UNKNOWN,
    )
    return make_trainer(folder, policy, **arguments | options)


def around(model: nn.Module, trainer: UnlearningTrainer) -> list[float]:
    """Levels a little or far below and above the rows' own nll, as fp32 has them."""
    shifts = [0.3, -0.2, 1.5, -1.0]
    shifted = [nll + shifts[i % 4] for i, nll in enumerate(nll_of_rows(model, trainer))]
    return torch.tensor(shifted).tolist()


def rho_of(step: int) -> float:
    return min(1, (step + 1) / STEPS / RAMP)


@pytest.mark.parametrize(
    ("kind", "token_weight", "ordered"), [("llama", 0.0, False), ("llama", 0.4, True), ("opt", 0.4, False)]
)
def test_steps_to_the_level_are_the_oracles(tmp_path, monkeypatch, kind, token_weight, ordered):
    policy = tiny_model(kind, dropout=0.1).double()
    before, start = copy.deepcopy(policy).eval(), weights(policy)
    term = {"name": "unseen_level", "ramp": RAMP, "delta": 0.4, "token_weight": token_weight, "weight": 1.5}
    trainer = level_trainer(tmp_path, policy, forget_loss=term, forget_weight=0.7, levels="holdout")
    taus = around(before, trainer)
    tokens = [
        torch.tensor([0.1 + (3 * i + 5 * t) % 7 for t in range(len(naive.shift_check(row)))]).tolist()
        for i, row in enumerate(trainer.train_sets.forget)
    ]
    tokens = tokens if ordered else [sorted(row) for row in tokens]
    set_levels(monkeypatch, made_levels(taus, tokens, ordered=ordered))
    count, signs = iter(range(STEPS)), set()

    def loss(model: nn.Module, rows: StepRows) -> Tensor:
        rho, aims = rho_of(next(count)), [taus[index] for index in rows.index]
        nll = [float(-naive.token_logps(model, row).detach().mean()) for row in rows.forget]
        signs.update(value > rho * aim for value, aim in zip(nll, aims, strict=True))
        known = {}
        if token_weight:
            known = dict(token_levels=[tokens[i] for i in rows.index], token_weight=token_weight, ordered=ordered)
        level = oracle.unseen_level(model, rows.forget, aims, rho=rho, delta=0.4, **known)
        return 0.7 * 1.5 * level + naive.retain_nll(model, rows.retain)

    assert_same_change(policy, start, run_and_expect(trainer, before, loss), rtol=1e-6)
    assert signs == {True, False}, "rows of one side alone"


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
def test_steps_from_both_sides_inside_sam_and_surgery_are_the_oracles(tmp_path, monkeypatch, lora):
    """Where wrappers compute the gradient again, at other weights: with the bound, and the progress of the step."""
    policy = tiny_model("opt", dropout=0.1).double()
    policy = perturbed(get_peft_model(policy, LORA), scale=0.3) if lora else policy
    before, start = copy.deepcopy(policy).eval(), weights(policy)
    simnpo = {"name": "simnpo", "beta": 0.6, "delta": 4.0}
    trainer = level_trainer(
        tmp_path,
        policy,
        forget_loss=[{"name": "unseen_level", "ramp": RAMP, "token_weight": 0}, simnpo],
        forget_nll_bound="levels",
        forget_bound_sides="both",
        step_wrappers=[{"name": "sam", "rho": 0.05}, "surgery"],
        learning_rate=0.01,
    )
    taus = around(before, trainer)
    set_levels(monkeypatch, made_levels(taus))
    moving = list(steps.trainable_weights(before))
    for step in range(STEPS):
        rows, rho = rows_of_step(trainer, step), rho_of(step)
        bounds = [taus[index] for index in rows.index]

        def forget_side(model: nn.Module, rows=rows, bounds=bounds, rho=rho) -> Tensor:
            nll = [float(-naive.token_logps(model, row).detach().mean()) for row in rows.forget]
            active = [value < bound for value, bound in zip(nll, bounds, strict=True)]
            level = oracle.unseen_level(model, rows.forget, bounds, rho=rho)
            pushed = naive.simnpo(model, rows.forget, 0.6, 4.0, active)
            return level + pushed + oracle.pull_back(model, rows.forget, bounds)

        gradient = steps.sam_gradient(before, forget_side, 0.05)
        kept = steps.gradient(before, naive.retain_nll(before, rows.retain))
        gradient = steps.projected(gradient, kept)
        with torch.no_grad():
            for name in moving:
                before.get_parameter(name).sub_(0.01 * (gradient[name] + kept[name]))
    trainer.train()
    assert 0 < step_logs(trainer)[0]["bound_share"] < 1
    expected = {name: weight.detach() - start[name] for name, weight in before.named_parameters()}
    assert_same_change(policy, start, expected, rtol=1e-6)


# --- The distance to the levels, and the rule that stops at it ---


def distances(trainer: UnlearningTrainer) -> list[float | None]:
    return [log.get("level_distance") for log in step_logs(trainer)]


def test_the_distance_is_the_median_over_all_rows_once_each_was_seen(tmp_path):
    model, frozen = tiny_model(), dict(learning_rate=0.0, forget_loss={"name": "unseen_level", "token_weight": 0.0})
    taus = {row: 4 + 0.2 * row for row in range(12)}
    trainer = level_trainer(tmp_path, model, levels=taus, max_steps=5, **frozen)
    trainer.train()
    nll = nll_of_rows(model, trainer)
    expected = float(np.median([abs(value - taus[row]) for row, value in enumerate(nll)]))
    assert distances(trainer) == [None, None, *[pytest.approx(expected, rel=1e-5)] * 3]


TO_THE_LEVEL: dict[str, Any] = dict(
    forget_loss={"name": "unseen_level", "ramp": 0.5, "delta": 2.0, "token_weight": 0},
    levels={row: 6.2 + 0.1 * row for row in range(12)},
    max_steps=24,
    learning_rate=0.03,
    optim="adamw_torch",
    forget_weight=2.0,
)


def test_a_run_stops_near_the_levels_and_a_resumed_one_at_the_same_step(tmp_path):
    saved = dict(stop_at_level=0.4, save_strategy="steps", save_steps=10)
    trainer = level_trainer(tmp_path, tiny_model(), **TO_THE_LEVEL | saved)
    trainer.train()
    *before, last = [distance for distance in distances(trainer) if distance is not None]
    stopped = trainer.state.global_step
    assert 10 < stopped < 24 and all(distance > 0.4 for distance in before) and last <= 0.4
    assert trainer.stop_reason.startswith(f"half of the forget rows are within {last:.4g} nats per token")
    # In the middle of an epoch: what the first steps of it have seen is in the checkpoint.
    resumed = level_trainer(tmp_path, tiny_model(), **TO_THE_LEVEL | saved)
    resumed.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-10"))
    assert resumed.stop_reason == trainer.stop_reason and resumed.state.global_step == stopped
    assert distances(resumed) == distances(trainer)
    for name, weight in trainer.model.named_parameters():
        assert torch.equal(weight, resumed.model.get_parameter(name))
    assert last < before[0] / 2


# --- What is refused ---

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a loss of levels without any": ({"levels": None}, "levels, for unseen_level"),
    "levels of tokens that were not given": ({"token": 0.5}, "levels that are estimated, for the token term"),
    "a stop at levels without any": ({"forget": "npo", "levels": None, "stop_at_level": 0.3}, "levels, for stop_at_"),
    "a stop that is never looked at": ({"stop_at_level": 0.3, "logging_strategy": "no"}, "steps that are logged"),
    "two sides of no bound": ({"forget_bound_sides": "both"}, "a forget_nll_bound together with"),
    "a bound that holds no loss": ({"forget_nll_bound": 4.0}, "a forget loss that the row bound holds"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_would_have_no_effect_is_refused(tmp_path, case):
    options, words = REFUSED[case]
    options = dict(options)
    loss = {"name": "unseen_level", "token_weight": options.pop("token", 0.0)}
    with pytest.raises(ValueError) as caught:
        level_trainer(tmp_path, tiny_model(), forget_loss=options.pop("forget", loss), **options)
    assert_user_error(str(caught.value), words)
