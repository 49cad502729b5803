"""Runs with an anchor on holdout rows, against naive loops and against each other. Not which rows meet."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from peft import LoraConfig
from torch import Tensor, nn
from transformers import DataCollatorForSeq2Seq

from fixtures.models import (
    make_trainer,
    perturbed,
    step_logs,
    tiny_model,
    tiny_tokenizer,
    train_sets,
    weights,
)
from fixtures.one_step import ACCUMULATION, BATCH, LR, StepRows, assert_same_change, rows_of_step, run_and_expect, spec
from hf_unlearn import DataCollatorForUnlearning, UnlearningTrainer
from hf_unlearn.data import Role
from hf_unlearn.data.holdout_split import calibration_rows
from hf_unlearn.losses import AnchorKL, Loss, RetainKL
from hf_unlearn.losses.base import Needs, roles
from hf_unlearn.results.model_card.text import formula
from hf_unlearn.results.record import load_record
from oracles import naive, steps

LORA = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], lora_dropout=0.1)
UNSEEN = [{"prompt": f"what is {i}?", "completion": f" cat {i * 37}" + " y" * (i % 4)} for i in range(24)]
SIDES = dict(forget_weight=0.7, retain_weight=1.3, anchor_weight=0.4)

Trajectory = tuple[list[dict[str, float]], dict[str, Tensor]]


def anchor_sets() -> dict[str, Any]:
    """As `train_sets`, with holdout rows enough that a batch finds its own in the half that a run reads."""
    return train_sets() | {"holdout": datasets.Dataset.from_list(UNSEEN)}


ANCHORED: dict[str, Any] = dict(forget_loss="simnpo", retain_loss="nll", anchor_loss="kl", sets=anchor_sets())


def forget_side(model: nn.Module, rows: StepRows) -> Tensor:
    return 0.7 * naive.simnpo(model, rows.forget, 0.6, 4.0)


def kept_side(reference: nn.Module) -> Callable[[nn.Module, StepRows], Tensor]:
    """What a step keeps: retain rows, and holdout rows where the step has any."""

    def side(model: nn.Module, rows: StepRows) -> Tensor:
        anchor = 0.4 * naive.retain_kl(model, reference, rows.holdout) if rows.holdout else 0.0
        return 1.3 * naive.retain_nll(model, rows.retain) + anchor

    return side


def anchored_trainer(folder: Path, model: nn.Module, **options: Any) -> UnlearningTrainer:
    arguments = dict(
        per_device_train_batch_size=BATCH,
        gradient_accumulation_steps=ACCUMULATION,
        learning_rate=LR,
        max_steps=2,
        forget_loss=spec("simnpo"),
        retain_loss="nll",
        anchor_loss="kl",
        sets=anchor_sets(),
        **SIDES,
    )
    return make_trainer(folder, model, **arguments | options)


def check_steps(trainer: UnlearningTrainer, reference: nn.Module, rtol: float = 1e-7) -> None:
    """Two steps are those of the naive loop: forget + retain + anchor, of the rows that the trainer reads."""
    before, start, kept = copy.deepcopy(trainer.model).eval(), weights(trainer.model), kept_side(reference)
    expected = run_and_expect(trainer, before, lambda model, rows: forget_side(model, rows) + kept(model, rows))
    assert_same_change(trainer.model, start, expected, rtol)


# One step


# Of four forget rows a step, three holdout rows in its two micro-batches; or one, and a micro-batch without any.
@pytest.mark.parametrize(("kind", "ratio"), [("llama", 0.75), ("opt", 0.25)])
def test_steps_are_the_oracles(tmp_path, kind, ratio):
    policy = tiny_model(kind, dropout=0.1).double()
    reference = perturbed(policy)
    trainer = anchored_trainer(tmp_path, policy, ref_model=copy.deepcopy(reference), anchor_ratio=ratio)
    assert len(trainer.train_sets.holdout) == len(calibration_rows(UNSEEN)) < 24, "the rest is for measuring"
    rows = [rows_of_step(trainer, step).holdout for step in range(2)]
    assert [len(each) for each in rows] == [4 * ratio] * 2 and rows[0] != rows[1]
    check_steps(trainer, reference)
    for log in step_logs(trainer):
        parts = 0.7 * log["forget/simnpo"] + 1.3 * log["retain/nll"] + 0.4 * log["anchor/kl"]
        assert log["loss"] == pytest.approx(parts, rel=1e-6)
        assert log["anchor/kl"] > 1e-3 and log["holdout_nll"] > 1


@pytest.mark.parametrize("reference", ["auto", "copy"])
def test_steps_of_an_adapter_whose_reference_is_the_base(tmp_path, reference):
    base = tiny_model().double()
    trainer = anchored_trainer(tmp_path, copy.deepcopy(base), reference=reference, peft_config=LORA)
    assert str(trainer.reference.plan) == {"auto": "adapter"}.get(reference, reference)
    check_steps(trainer, base)


@pytest.mark.parametrize("wrappers", [["surgery"], [{"name": "sam", "rho": 0.05}, "surgery"]], ids=["surgery", "sam"])
def test_the_anchor_goes_with_the_retain_side(tmp_path, wrappers):
    """Surgery takes out of the forget gradient what is against retain and anchor together; sam moves neither."""
    policy = tiny_model("opt").double()
    reference, before, start = perturbed(policy), copy.deepcopy(policy).eval(), weights(policy)
    trainer = anchored_trainer(
        tmp_path, policy, ref_model=copy.deepcopy(reference), anchor_ratio=0.5, max_steps=1, step_wrappers=wrappers
    )
    rows, side = rows_of_step(trainer), kept_side(reference)
    kept = steps.gradient(before, side(before, rows))
    forget = steps.gradient(before, forget_side(before, rows))
    if len(wrappers) > 1:
        forget = steps.sam_gradient(before, lambda model: forget_side(model, rows), 0.05)
    change = {name: -LR * (part + kept[name]) for name, part in steps.projected(forget, kept).items()}
    trainer.train()
    assert_same_change(policy, start, change, rtol=1e-7)
    assert any(not torch.allclose(change[name], -LR * (forget[name] + kept[name]), rtol=1e-3) for name in change)


def test_surgery_has_a_side_to_keep_without_a_retain_loss(tmp_path):
    trainer = anchored_trainer(tmp_path, tiny_model(), retain_loss="none", step_wrappers="surgery", anchor_ratio=1)
    trainer.train()
    assert step_logs(trainer)[1]["anchor/kl"] > 1e-6


# The reference


@pytest.mark.parametrize("peft_config", [None, LORA], ids=["full", "lora"])
def test_at_the_reference_the_anchor_is_zero_and_pulls_nowhere(tmp_path, peft_config):
    model = tiny_model().double()
    options = dict(retain_loss="none", forget_weight=0.0, anchor_ratio=0.5, peft_config=peft_config, max_steps=1)
    trainer = anchored_trainer(tmp_path, copy.deepcopy(model), **options)
    trainer.train()
    (log,) = step_logs(trainer)
    assert log["anchor/kl"] == pytest.approx(0, abs=1e-14) and log["grad_norm"] == pytest.approx(0, abs=1e-14)
    moved = anchored_trainer(tmp_path, model, ref_model=perturbed(model), **options)
    with torch.no_grad():
        for name, weight in moved.model.named_parameters():
            if "lora_B" in name:  # or the gradient of the other half would be zero
                weight += 0.1
    moved.train()
    (log,) = step_logs(moved)
    assert log["anchor/kl"] > 1e-3 and log["grad_norm"] > 1e-4


def trajectory(folder: Path, model: nn.Module | None = None, **arguments: Any) -> Trajectory:
    """Four steps: every log without its timings, and the final weights."""
    trainer = make_trainer(folder, model or tiny_model(), **{"max_steps": 4} | ANCHORED | arguments)
    trainer.train()
    return recorded(trainer)


def recorded(trainer: UnlearningTrainer) -> Trajectory:
    left_out = ("epoch", "step", "learning_rate")
    logs = [{k: v for k, v in log.items() if k not in left_out} for log in step_logs(trainer)]
    assert logs[-1]["anchor/kl"] > 1e-5 and all(a["loss"] != b["loss"] for a, b in pairwise(logs))
    return logs, weights(trainer.model)


def assert_same(one: Trajectory, other: Trajectory, rtol: float = 1e-5) -> None:
    for a, b in zip(one[0], other[0], strict=True):
        assert a == (pytest.approx(b, rel=rtol, abs=rtol * 0.1) if rtol else b)
    for name, weight in one[1].items():
        torch.testing.assert_close(weight, other[1][name], rtol=rtol, atol=rtol)


def test_all_of_the_likeliest_tokens_are_the_copy(tmp_path):
    whole = trajectory(tmp_path / "copy", reference="copy", anchor_ratio=0.5)
    every = trajectory(tmp_path / "topk", reference="topk", reference_top_k=1000, anchor_ratio=0.5)
    assert_same(whole, every, rtol=2e-4)
    few = trajectory(tmp_path / "few", reference="topk", reference_top_k=8, anchor_ratio=0.5)
    assert 0 < few[0][-1]["anchor/kl"] <= whole[0][-1]["anchor/kl"] * 1.02


@dataclass(frozen=True)
class Likely(Loss):
    """An anchor of a user's own: how far the log-probs of holdout answers are from the reference's."""

    name = "likely"
    unit = "token"
    on = Role.HOLDOUT
    needs = Needs(roles=roles(Role.HOLDOUT), reference_logps=roles(Role.HOLDOUT))
    formula = paper = ""

    def __call__(self, scores):
        assert scores.holdout is not None and scores.holdout.reference is not None
        return (scores.holdout.logps - scores.holdout.reference.logps) ** 2


def test_reference_log_probs_of_holdout_rows_are_looked_up(tmp_path):
    runs = []
    for reference in ("precomputed", "copy"):
        options = dict(anchor_loss=Likely(), anchor_ratio=0.5, max_steps=4, reference=reference, anchor_weight=0.4)
        trainer = make_trainer(tmp_path / reference, tiny_model(), **ANCHORED | options)
        trainer.train()
        runs.append([(log["loss"], log["grad_norm"], log["anchor/likely"]) for log in step_logs(trainer)])
    assert runs[0][-1][2] > 1e-4
    for one, other in zip(*runs, strict=True):
        assert one == pytest.approx(other, rel=1e-5, abs=1e-6)


# How a step is split, padded, ordered and resumed


@pytest.mark.parametrize("ratio", [0.25, 0.7])
def test_batch_size_times_accumulation_is_all_that_counts(tmp_path, ratio):
    runs = [
        trajectory(
            tmp_path / f"{batch}x{accumulated}",
            ref_model=perturbed(tiny_model()),
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=accumulated,
            anchor_ratio=ratio,
        )
        for batch, accumulated in ((8, 1), (4, 2), (2, 4))
    ]
    for other in runs[1:]:
        assert_same(runs[0], other)


def test_neither_padding_nor_a_collator_of_ones_own_changes_a_run(tmp_path):
    options = dict(ref_model=perturbed(tiny_model()), anchor_ratio=0.5)
    plain = trajectory(tmp_path / "plain", **copy.deepcopy(options))
    tokenizer = tiny_tokenizer()
    own = DataCollatorForSeq2Seq(tokenizer)
    for name, other in (("free", dict(padding_free=True)), ("own", dict(data_collator=own, tokenizer=tokenizer))):
        assert_same(plain, trajectory(tmp_path / name, **copy.deepcopy(options), **other), rtol=1e-4)


def test_a_collator_that_leaves_the_holdout_rows_out(tmp_path):
    def collate(items):
        return DataCollatorForUnlearning(0)([{k: v for k, v in item.items() if k != "anchor"} for item in items])

    with pytest.raises(ValueError, match="without the holdout rows of their items"):
        make_trainer(tmp_path, tiny_model(), data_collator=collate, **ANCHORED)
    make_trainer(tmp_path, tiny_model(), data_collator=collate)


# Three steps make an epoch: step 2 is inside of one, step 3 at its end.
@pytest.mark.parametrize(("strategy", "stop"), [("random", 3), ("group_by_length", 2)])
def test_a_resumed_run_is_the_uninterrupted_one_to_the_last_bit(tmp_path, strategy, stop):
    arguments = dict(max_steps=5, optim="adamw_torch", learning_rate=1e-2, anchor_ratio=0.7, save_steps=stop)
    runs = []
    for checkpoint in (None, str(tmp_path / "out" / f"checkpoint-{stop}")):
        options = ANCHORED | arguments | dict(train_sampling_strategy=strategy, save_strategy="steps")
        trainer = make_trainer(tmp_path, tiny_model(), **options)
        trainer.train(resume_from_checkpoint=checkpoint)
        runs.append(recorded(trainer))
    assert_same(*runs, rtol=0)


@pytest.mark.parametrize("streamed", [["holdout"], ["forget", "retain", "holdout"]], ids=["holdout", "all"])
def test_streams(tmp_path, streamed):
    """A step of streams is the naive loop's too."""
    sets = anchor_sets()
    sets |= {name: sets[name].to_iterable_dataset() for name in streamed}
    policy = tiny_model().double()
    reference, before, start = perturbed(policy), copy.deepcopy(policy).eval(), weights(policy)
    trainer = anchored_trainer(
        tmp_path, policy, sets=sets, ref_model=copy.deepcopy(reference), anchor_ratio=0.75, max_steps=1
    )
    items = [item for item, _ in zip(trainer.train_dataset, range(BATCH * ACCUMULATION), strict=False)]
    rows = StepRows(forget=items, retain=[row for item in items for row in item["retain"]])
    rows.holdout = [row for item in items for row in item["anchor"]]
    assert len(rows.holdout) == 3
    texts = [tiny_tokenizer().decode(row["input_ids"]) for row in rows.holdout]
    half = [row["prompt"] for row in calibration_rows(UNSEEN)]
    assert len(half) < 24 and all(any(prompt in text for prompt in half) for text in texts)
    loss = forget_side(before, rows) + kept_side(reference)(before, rows)
    change = {name: -LR * part for name, part in steps.gradient(before, loss).items()}
    trainer.train()
    assert_same_change(policy, start, change, rtol=1e-7)


# Weights


def test_primal_dual_leaves_the_anchor_alone(tmp_path):
    trainer = make_trainer(
        tmp_path,
        tiny_model(),
        **ANCHORED,
        anchor_weight=0.4,
        anchor_ratio=0.5,
        weighting={"name": "primal_dual", "eta": 0.5, "epsilon": 1.0},
        max_steps=4,
    )
    trainer.train()
    logs, weight = step_logs(trainer), 1.0
    for log in logs:
        parts = log["forget/simnpo"] + weight * log["retain/nll"] + 0.4 * log["anchor/kl"]
        assert log["loss"] == pytest.approx(parts, rel=1e-5)
        weight = max(0.0, weight + 0.5 * (log["retain/nll"] - 1.0))
        assert log["retain_weight"] == pytest.approx(weight, rel=1e-5)
    assert logs[-1]["anchor/kl"] > 1e-4
    trainer.write_card()
    card = (tmp_path / "out" / "README.md").read_text()
    assert formula(load_record(tmp_path / "out").objective).endswith(" + 0.4 * (1 * anchor/kl)")
    for words in ("anchor_loss='kl'", "anchor_weight=0.4", "anchor_ratio=0.5", "`anchor/kl`", "`holdout_nll`"):
        assert words in card, words


def test_the_weight_of_the_anchor_may_be_set_between_two_runs(tmp_path):
    trainer = make_trainer(tmp_path, None, model_init=lambda: tiny_model(), max_steps=2, **ANCHORED)
    assert trainer.unlearning_objective.anchor_weight == 0.5
    trainer.args.anchor_weight = 2.0
    trainer.args.anchor_loss = {"name": "kl", "weight": 3.0}
    trainer.train()
    log = step_logs(trainer)[-1]
    assert log["loss"] == pytest.approx(log["forget/simnpo"] + log["retain/nll"] + 6 * log["anchor/kl"], rel=1e-5)
    trainer.args.anchor_ratio = 1.0
    with pytest.raises(ValueError, match="anchor_ratio"):
        trainer.train()


# What is refused


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (dict(anchor_weight=1.0), "anchor_weight must be left at 0.5 without an anchor_loss"),
        (dict(anchor_ratio=1), "anchor_ratio must be left at 0.25 without an anchor_loss"),
        (dict(anchor_loss="kl", anchor_ratio=0), "anchor_ratio must be"),
        (dict(anchor_loss="kl", anchor_weight=-1), "anchor_weight must be"),
        (dict(anchor_loss="nll"), "anchor_loss"),
        (dict(anchor_loss=RetainKL()), "belongs to the other side, retain_loss"),
        (dict(retain_loss=AnchorKL()), "belongs to the other side, anchor_loss"),
        (dict(forget_loss=Likely()), "holdout rows under anchor losses"),
        (dict(retain_loss=Likely()), "holdout rows under anchor losses"),
        (dict(anchor_loss="kl", anchor_ratio=4), "at least 16 holdout rows"),
        (dict(anchor_loss="kl", reference="precomputed"), "whole distributions"),
        (dict(anchor_loss="kl", sets={k: v for k, v in anchor_sets().items() if k != "holdout"}), "holds rows that"),
        (
            dict(anchor_loss="kl", sets=anchor_sets() | {"holdout": datasets.Dataset.from_list([])}),
            "at least one row in the holdout set",
        ),
        (
            dict(anchor_loss="kl", sets=anchor_sets() | {"retain": datasets.Dataset.from_list(UNSEEN)}),
            "no row both in the retain and in the holdout set",
        ),
    ],
)
def test_what_cannot_be_an_anchor(tmp_path, arguments, words):
    with pytest.raises(ValueError, match=words):
        make_trainer(tmp_path, tiny_model(), **{"sets": anchor_sets()} | arguments)
