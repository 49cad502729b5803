"""What must not change a run: how a step is split, padded, checkpointed, resumed or given its reference. Not losses.

Each test compares whole trajectories (every logged loss, norm and component, and the final weights), and shows that
the trajectory moves at all.
"""

import copy
from itertools import pairwise
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn

from fixtures.models import item_at, make_trainer, perturbed, step_logs, tiny_model, tiny_tokenizer, weights
from hf_unlearn import DataCollatorForUnlearning, UnlearningTrainer
from hf_unlearn.data import Role
from hf_unlearn.data.batch import count_answers
from hf_unlearn.model.output_head import output_head
from hf_unlearn.model.scoring import score

LORA = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"])
SEED_RECIPE: dict[str, Any] = {
    "forget_loss": [{"name": "grad_ascent", "weight": 0.5}, {"name": "random_mismatch", "k": 2}],
    "retain_loss": "kl",
}
# A ramp, both sides of a bound, and a rule that reads the distance to the levels and never fires.
LEVELS: dict[str, Any] = {
    "forget_loss": [{"name": "unseen_level", "delta": 1.0, "token_weight": 0.3}, "simnpo"],
    "levels": "ngram",
    "forget_nll_bound": "levels",
    "forget_bound_sides": "both",
    "stop_at_level": 1e-6,
}
# Timings, and nothing that a loss enters.
NOT_COMPARED = ("epoch", "step", "learning_rate")

Trajectory = tuple[list[dict[str, float]], dict[str, Tensor]]


def trajectory(folder, model: nn.Module | None = None, **arguments: Any) -> Trajectory:
    """Train for four steps: every log, and the final weights."""
    trainer = make_trainer(folder, model or tiny_model(), **{"max_steps": 4} | arguments)
    before = weights(trainer.model)
    trainer.train()
    return recorded(trainer, before)


def recorded(trainer: UnlearningTrainer, before: dict[str, Tensor]) -> Trajectory:
    logs = [{k: v for k, v in log.items() if k not in NOT_COMPARED} for log in step_logs(trainer)]
    after = weights(trainer.model)
    assert len(logs) == trainer.args.max_steps // trainer.args.logging_steps
    assert any(not torch.equal(after[name], before[name]) for name in after), "a run that moves nothing proves nothing"
    assert all(a["loss"] != b["loss"] for a, b in pairwise(logs))
    return logs, after


def assert_same(one: Trajectory, other: Trajectory, rtol: float = 1e-5) -> None:
    """Equal logs and weights; with rtol 0, to the last bit."""
    assert len(one[0]) == len(other[0])
    for a, b in zip(one[0], other[0], strict=True):
        assert a == (pytest.approx(b, rel=rtol, abs=rtol * 1e-2) if rtol else b)
    assert one[1].keys() == other[1].keys()
    for name, weight in one[1].items():
        torch.testing.assert_close(weight, other[1][name], rtol=rtol, atol=rtol, msg=lambda m, n=name: f"{n}: {m}")


# --- How a step is split ---

# Twelve forget rows and eight a step: the second step of each epoch is half full.
SPLITS = [(8, 1), (4, 2), (2, 4), (1, 8)]


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        ("llama", {"forget_loss": "npo", "retain_loss": "kl", "retain_ratio": 1}),
        (
            "opt",
            {"forget_loss": "grad_ascent", "retain_loss": "nll", "retain_ratio": 2, "forget_nll_bound": "log_vocab"},
        ),
        ("llama", {**SEED_RECIPE, "retain_ratio": 0.5}),
        ("opt", {"forget_loss": ["dpo", "simnpo", "idk"], "retain_loss": ["nll", "kl"], "retain_ratio": 0.5}),
        ("llama", {**LEVELS, "retain_loss": "nll", "retain_ratio": 2}),
    ],
    ids=["npo+kl", "grad_ascent+nll", "seed_recipe", "many", "levels"],
)
def test_batch_size_times_accumulation_is_all_that_counts(tmp_path, kind, arguments):
    reference = {} if arguments["retain_loss"] == "nll" else {"ref_model": perturbed(tiny_model(kind))}
    runs = [
        trajectory(
            tmp_path / f"{batch}x{steps}",
            # Dropout in the configuration must be off in the run, or no two splits could agree.
            tiny_model(kind, dropout=0.2),
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=steps,
            **arguments,
            **copy.deepcopy(reference),
        )
        for batch, steps in SPLITS
    ]
    for other in runs[1:]:
        assert_same(runs[0], other)


def test_dropout_is_on_when_it_is_asked_for(tmp_path):
    without = trajectory(tmp_path / "without", tiny_model("opt", dropout=0.2))
    with_dropout = trajectory(tmp_path / "with", tiny_model("opt", dropout=0.2), disable_dropout=False)
    assert_same(without, trajectory(tmp_path / "none", tiny_model("opt", dropout=0.0)), rtol=0)
    assert with_dropout[0][0]["loss"] != pytest.approx(without[0][0]["loss"], rel=1e-3)


# --- Padding, and the other rows of a batch ---


@pytest.fixture(scope="module")
def items(tmp_path_factory) -> list[dict[str, Any]]:
    """Six paired items, with rows of every role."""
    trainer = make_trainer(
        tmp_path_factory.mktemp("items"),
        tiny_model(),
        forget_loss=["dpo", {"name": "random_mismatch", "k": 2}],
        retain_loss=["nll", "answer_preservation"],
        anchor_loss="kl",
        anchor_ratio=1,
        per_device_train_batch_size=1,
    )
    return [item_at(trainer, position) for position in range(6)]


def row_nlls(model: nn.Module, collator: DataCollatorForUnlearning, items: list[dict[str, Any]]) -> dict[Role, Tensor]:
    with torch.no_grad():
        scores, _ = score(model, output_head(model), collator(items))
    return {role: rows.nll_sum() for role, rows in scores.items()}


@pytest.mark.parametrize("kind", ["llama", "opt"])
@pytest.mark.parametrize(
    "padding",
    [{"pad_to_multiple_of": 64}, {"padding_side": "left"}, {"padding_side": "left", "pad_to_multiple_of": 64}],
)
def test_padding_changes_no_rows_nll(items, kind, padding):
    model = tiny_model(kind).eval()
    plain, padded = DataCollatorForUnlearning(0), DataCollatorForUnlearning(0, **padding)
    assert padded(items)["input_ids"].shape[1] >= plain(items)["input_ids"].shape[1]
    one, other = row_nlls(model, plain, items), row_nlls(model, padded, items)
    assert list(one) == list(Role)
    for role in Role:
        torch.testing.assert_close(one[role], other[role], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["llama", "opt"])
@pytest.mark.parametrize("side", ["right", "left"])
def test_neighbours_change_no_rows_nll(items, kind, side):
    model = tiny_model(kind).eval()
    collator = DataCollatorForUnlearning(0, padding_side=side)
    together = row_nlls(model, collator, items)
    alone = [row_nlls(model, collator, [item]) for item in items]
    for role in Role:
        torch.testing.assert_close(torch.cat([each[role] for each in alone]), together[role], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["llama", "opt"])
def test_padding_changes_no_trajectory(tmp_path, kind):
    def run(name: str, **options: Any) -> Trajectory:
        model = tiny_model(kind)
        return trajectory(tmp_path / name, model, **SEED_RECIPE, ref_model=perturbed(model), **options)

    plain = run("plain")
    assert_same(plain, run("long", pad_to_multiple_of=64))
    assert_same(plain, run("left", data_collator=DataCollatorForUnlearning(0, padding_side="left")))


def test_padding_with_the_end_token_changes_no_trajectory(tmp_path):
    def run(pad_token: str) -> Trajectory:
        return trajectory(
            tmp_path / pad_token.strip("</>"),
            tokenizer=tiny_tokenizer(pad_token),
            forget_loss="npo",
            retain_loss="kl",
            pad_to_multiple_of=64,
        )

    assert_same(run("<pad>"), run("</s>"), rtol=0)


def test_a_label_at_position_zero_is_never_a_target():
    ids = [5, 6, 7, 8]
    masked, unmasked = ({"input_ids": ids, "labels": labels} for labels in ([-100, -100, 7, 8], [5, -100, 7, 8]))
    model, collator = tiny_model().eval(), DataCollatorForUnlearning(0)
    counts = [count_answers(collator([row])) for row in (masked, unmasked)]
    assert torch.equal(*counts) and counts[0][Role.FORGET].tolist() == [2, 1]
    one, other = (row_nlls(model, collator, [row])[Role.FORGET] for row in (masked, unmasked))
    assert torch.equal(one, other)
    # Only its place matters: the same label one position later counts.
    assert count_answers(collator([{"input_ids": ids, "labels": ids}]))[Role.FORGET].tolist() == [3, 1]


# --- Where the reference comes from ---


@pytest.mark.parametrize("adapter", ["fresh", "trained"])
def test_every_way_to_a_reference_gives_one_trajectory(tmp_path, adapter):
    model = get_peft_model(tiny_model(), LORA)
    model = perturbed(model, scale=0.3) if adapter == "trained" else model

    def run(reference: str, **losses: Any) -> Trajectory:
        return trajectory(tmp_path / f"{reference}{len(losses)}", copy.deepcopy(model), reference=reference, **losses)

    for reference in ("adapter", "copy"):
        assert_same(run("precomputed", forget_loss="npo"), run(reference, forget_loss="npo"))
    with_kl = {"forget_loss": "dpo", "retain_loss": "kl"}
    assert_same(run("auto", **with_kl), run("adapter", **with_kl))
    assert_same(run("auto", **with_kl), run("copy", **with_kl))


def test_full_parameters_have_one_trajectory_too(tmp_path):
    cached = trajectory(tmp_path / "cached", reference="precomputed", forget_loss="npo")
    assert_same(cached, trajectory(tmp_path / "copy", reference="copy", forget_loss="npo"))
    assert_same(cached, trajectory(tmp_path / "given", ref_model=tiny_model(), forget_loss="npo"))


@pytest.mark.parametrize("peft_config", [None, LORA], ids=["full", "lora"])
def test_at_the_reference_kl_is_zero_and_pulls_nowhere(tmp_path, peft_config):
    # In fp64, since the reference's forward holds fewer rows than the policy's, and so may round another way.
    model = tiny_model().double()
    options = dict(forget_loss="grad_ascent", forget_weight=0.0, retain_loss="kl", peft_config=peft_config)
    trainer = make_trainer(tmp_path, copy.deepcopy(model), **options)
    trainer.train()
    (log,) = step_logs(trainer)
    assert log["retain/kl"] == pytest.approx(0, abs=1e-14) and log["grad_norm"] == pytest.approx(0, abs=1e-14)

    moved = make_trainer(tmp_path, model, ref_model=perturbed(model), **options)
    with torch.no_grad():
        for name, weight in moved.model.named_parameters():
            if "lora_B" in name:  # or the gradient of the other half would be zero
                weight += 0.1
    moved.train()
    (log,) = step_logs(moved)
    assert log["retain/kl"] > 1e-3 and log["grad_norm"] > 1e-3


@pytest.mark.parametrize("beta", [0.1, 0.5])
def test_at_the_reference_npo_is_two_ln_two_over_beta(tmp_path, beta):
    logs, _ = trajectory(tmp_path, forget_loss={"name": "npo", "beta": beta})
    # A row's NLL is a sum of tens of nats, whose last fp32 bit is 4e-6: policy and reference may differ by it.
    assert logs[0]["forget/npo"] == pytest.approx(2 / beta * 0.6931471805599453, rel=1e-6, abs=8e-6)
    assert logs[1]["forget/npo"] != pytest.approx(logs[0]["forget/npo"], rel=1e-3)


# --- Activation checkpointing ---


@pytest.mark.parametrize("peft_config", [None, LORA], ids=["full", "lora"])
@pytest.mark.parametrize("argument", ["activation_checkpointing", "gradient_checkpointing"])
@pytest.mark.parametrize("use_reentrant", [True, False])
@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*")
def test_checkpointing_changes_nothing_and_every_adapter_moves(tmp_path, peft_config, argument, use_reentrant):
    options = dict(forget_loss="npo", retain_loss="kl", peft_config=peft_config)
    plain = trajectory(tmp_path / "plain", **options)
    checkpointing = {argument: True, f"{argument}_kwargs": {"use_reentrant": use_reentrant}}
    trainer = make_trainer(tmp_path / "checkpointing", tiny_model(), max_steps=4, **options, **checkpointing)
    assert not trainer.model.is_gradient_checkpointing
    before = weights(trainer.model)
    trainer.train()
    assert trainer.model.is_gradient_checkpointing, "the comparison would be of a run with itself"
    assert_same(plain, recorded(trainer, before))
    adapters = {name for name in before if "lora_B" in name}
    assert len(adapters) == (4 if peft_config else 0)
    assert all(bool(trainer.model.get_parameter(name).any()) for name in adapters)


# --- Interrupted runs ---

RESUMED: dict[str, Any] = dict(
    max_steps=7,
    optim="adamw_torch",
    learning_rate=1e-2,
    lr_scheduler_type="linear",
    forget_loss="npo",
    retain_loss="kl",
    forget_nll_bound="holdout",
    save_steps=1,
    save_strategy="steps",
)


def resumed(folder, stop_at: int, logging_steps: int = 1, **options: Any) -> tuple[Trajectory, Trajectory]:
    """An uninterrupted run, and one that goes on in a new trainer from the checkpoint of a step."""
    arguments = RESUMED | {"logging_steps": logging_steps} | options
    whole = make_trainer(folder, tiny_model(), **arguments)
    before = weights(whole.model)
    whole.train()
    rest = make_trainer(folder, tiny_model(), **arguments)
    rest.train(resume_from_checkpoint=str(folder / "out" / f"checkpoint-{stop_at}"))
    assert rest.state.global_step == 7
    return recorded(whole, before), recorded(rest, before)


# Three steps make an epoch: step 2 is inside one, step 3 at its end.
@pytest.mark.parametrize("peft_config", [None, LORA], ids=["full", "lora"])
@pytest.mark.parametrize("stop_at", [2, 3, 5])
def test_a_resumed_run_is_the_uninterrupted_one_to_the_last_bit(tmp_path, peft_config, stop_at):
    whole, rest = resumed(tmp_path, stop_at, peft_config=peft_config)
    assert_same(whole, rest, rtol=0)


def test_a_resumed_run_logs_the_same_means(tmp_path):
    # The first window after the checkpoint of step 4 covers steps 5 and 6, not six steps.
    whole, rest = resumed(tmp_path, 4, logging_steps=2)
    assert_same(whole, rest)


def test_workers_that_load_data_change_nothing(tmp_path):
    # Persistent workers outlive the epoch, and must see the order change with it.
    plain = trajectory(tmp_path / "plain", forget_loss="npo", retain_loss="kl", max_steps=7)
    for persistent in (False, True):
        workers = {"dataloader_num_workers": 2, "dataloader_persistent_workers": persistent}
        loaded = trajectory(tmp_path / f"{persistent}", forget_loss="npo", retain_loss="kl", max_steps=7, **workers)
        assert_same(plain, loaded, rtol=0)
