"""Batches without padding: the same numbers as padded ones, in every loss's step, and what cannot have them."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from peft import LoraConfig
from transformers import GPT2Config, GPT2LMHeadModel, LlamaForCausalLM

from fixtures.examples import assert_four_parts
from fixtures.models import make_trainer, perturbed, step_logs, tiny_model, train_sets, weights
from hf_unlearn.data import DataCollatorForUnlearning, Role
from hf_unlearn.data.answer_positions import read_answer_index
from hf_unlearn.data.batch import IndexingCollator, select_roles
from hf_unlearn.model.scoring import model_inputs
from hf_unlearn.training.checks import require_setup
from hf_unlearn.training.distributed_setup import DistributedSetup
from hf_unlearn.training.padding_free import PairsWithoutPadding
from hf_unlearn.training.row_layout import RowLayout

ITEMS = [
    {"input_ids": [5, 6, 7], "labels": [-100, 6, 7], "row": 4, "retain": [{"input_ids": [8, 9], "labels": [8, 9]}]},
    {"input_ids": [1, 2, 3, 4], "labels": [-100, -100, 3, 4], "row": 2, "retain": []},
]


def test_rows_follow_each_other():
    batch = IndexingCollator(DataCollatorForUnlearning(0, padding_free=True))(ITEMS)
    layout = batch.pop("answer_index")
    expected = {
        "input_ids": [[5, 6, 7, 1, 2, 3, 4, 8, 9]],
        # The label of a row's first token is never a target: the row before it would predict it.
        "labels": [[-100, 6, 7, -100, -100, 3, 4, -100, 9]],
        "position_ids": [[0, 1, 2, 0, 1, 2, 3, 0, 1]],
        "row_lengths": [3, 4, 2],
        "role": [0, 0, 1],
        "source": [0, 1, -1],
        "row": [4, 2, -1],
    }
    assert {key: value.tolist() for key, value in batch.items()} == expected
    assert layout.positions.tolist() == [0, 1, 4, 5, 7] and layout.targets.tolist() == [6, 7, 3, 4, 9]
    assert layout.lengths.tolist() == [2, 2, 1] and layout.longest == 4 and layout.packed
    assert layout.rows[:2] == (2, 1) and layout.tokens[:2] == (4, 1) and layout.columns[:2] == ((0, 7), (7, 9))
    assert layout.row_numbers == (4, 2, -1) and layout.host_lengths == (2, 2, 1)


def test_pairs_are_joined_and_rows_of_evaluation_sets_are_padded():
    collate = PairsWithoutPadding(DataCollatorForUnlearning(0))
    joined, padded = collate(ITEMS), collate([ITEMS[0]["retain"][0], {"input_ids": [1, 2, 3], "labels": [-100, 2, 3]}])
    assert joined["input_ids"].tolist() == [[5, 6, 7, 1, 2, 3, 4, 8, 9]] and "attention_mask" not in joined
    assert padded["input_ids"].tolist() == [[8, 9, 0], [1, 2, 3]] and "row_lengths" not in padded
    assert padded["attention_mask"].tolist() == [[1, 1, 0], [1, 1, 1]]


def test_attention_over_rows_of_any_length_is_told_where_they_begin_and_end():
    batch = IndexingCollator(DataCollatorForUnlearning(0, padding_free=True))(ITEMS)
    inputs = model_inputs(batch, batch["answer_index"])
    assert inputs["cu_seq_lens_q"].tolist() == inputs["cu_seq_lens_k"].tolist() == [0, 3, 7, 9]
    assert inputs["cu_seq_lens_q"].dtype == torch.int32
    assert inputs["max_length_q"] == inputs["max_length_k"] == 4 and "attention_mask" not in inputs


@pytest.mark.parametrize("padding_free", [False, True])
@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("roles", [{Role.FORGET}, {Role.RETAIN}, {Role.FORGET, Role.ALTERNATE}, {Role.ALTERNATE}])
def test_some_roles_of_a_batch_are_the_batch_of_those_rows(padding_free, side, roles):
    others = [{"input_ids": [3] * n, "labels": [-100] + [3] * (n - 1)} for n in (2, 6)]
    items = [item | {"alternate": other} for item, other in zip(ITEMS, others, strict=True)]
    collate = IndexingCollator(DataCollatorForUnlearning(0, padding_side=side, padding_free=padding_free))
    part = select_roles(collate(items), roles)
    found = part["answer_index"]
    without = {key: value for key, value in part.items() if key != "answer_index"}
    fresh = IndexingCollator(lambda batch: batch)(without)["answer_index"]
    for name in ("positions", "targets", "lengths"):
        assert torch.equal(getattr(found, name), getattr(fresh, name)), name
    for name in ("rows", "tokens", "columns", "row_numbers", "host_lengths", "packed"):
        assert getattr(found, name) == getattr(fresh, name), name
    assert set(part["role"].tolist()) == {int(role) for role in roles} and len(found.targets)
    if not padding_free:
        assert part["attention_mask"].any(0).all(), "columns without a token are cut off"


def test_padding_predicts_nothing():
    # A row whose every token is an answer token, after padding on its left.
    batch = DataCollatorForUnlearning(0, padding_side="left")(ITEMS)
    layout = read_answer_index(batch)
    right = read_answer_index(DataCollatorForUnlearning(0)(ITEMS))
    assert layout.targets.tolist() == right.targets.tolist() and layout.host_lengths == right.host_lengths == (2, 2, 1)


OBJECTIVES: dict[str, dict[str, Any]] = {
    "grad_ascent + nll": dict(forget_loss="grad_ascent", retain_loss="nll"),
    "npo + kl, lora": dict(
        forget_loss="npo", retain_loss="kl", peft_config=LoraConfig(r=4, target_modules=r".*(q_proj|c_attn)")
    ),
    "dpo + answer_preservation": dict(forget_loss="dpo", retain_loss="answer_preservation"),
    "rmu + hidden": dict(forget_loss={"name": "rmu", "layer": 1}, retain_loss={"name": "hidden", "layer": 1}),
    "undial + jsd, holdout bound": dict(forget_loss="undial", retain_loss="jsd", forget_nll_bound="holdout"),
    "surgery": dict(forget_loss="npo", retain_loss="nll", step_wrappers="surgery"),
}


def model_of(kind: str) -> Any:
    if kind == "llama":
        return tiny_model()
    torch.manual_seed(0)
    sizes = dict(n_embd=32, n_layer=2, n_head=4, n_positions=128, initializer_range=0.15)
    return GPT2LMHeadModel(GPT2Config(vocab_size=261, **sizes, attn_pdrop=0, embd_pdrop=0, resid_pdrop=0))


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_run_without_padding_is_the_padded_run(tmp_path, name, kind):
    logs, ends = [], []
    for padding_free in (False, True):
        trainer = make_trainer(
            tmp_path, model_of(kind), padding_free=padding_free, max_steps=3, retain_ratio=2, **OBJECTIVES[name]
        )
        seen: list[torch.Size] = []
        trainer.model.register_forward_pre_hook(
            lambda _, args, kwargs, seen=seen: seen.append(kwargs["input_ids"].shape), with_kwargs=True
        )
        trainer.train()
        assert (seen[-1][0] == 1) == padding_free
        logs.append(step_logs(trainer))
        ends.append(weights(trainer.model))
    for one, other in zip(*logs, strict=True):
        assert one.keys() == other.keys()
        for key, value in one.items():
            assert other[key] == pytest.approx(value, rel=1e-4, abs=1e-5), key
    for weight, value in ends[0].items():
        torch.testing.assert_close(ends[1][weight], value, rtol=1e-4, atol=1e-5)
    assert logs[0][0]["loss"] != logs[0][-1]["loss"]


def test_eager_attention_too(tmp_path):
    logs = []
    for padding_free in (False, True):
        model = tiny_model()
        model.set_attn_implementation("eager")
        trainer = make_trainer(tmp_path, model, padding_free=padding_free, max_steps=2)
        trainer.train()
        logs.append([log["loss"] for log in step_logs(trainer)])
    assert logs[0] == pytest.approx(logs[1], rel=1e-5)


def test_evaluation_is_padded_and_gives_logits_by_row(tmp_path):
    rows = [{"prompt": "a b", "completion": " c" * n} for n in (2, 5, 3)]
    shapes = []
    trainer = make_trainer(
        tmp_path,
        tiny_model(),
        padding_free=True,
        eval_dataset={"forget": rows},
    )
    trainer.compute_metrics = lambda prediction: shapes.append(prediction.predictions.shape) or {}
    trainer.train()
    metrics = trainer.evaluate()
    assert shapes[0][0] == 3 and metrics["eval_forget_nll"] > 0


class Blind(LlamaForCausalLM):
    """Takes position ids, and leaves them to the attention of one row."""

    def forward(self, *args: Any, position_ids: Any = None, **kwargs: Any) -> Any:
        return super().forward(*args, **kwargs)


class WithoutPositions(LlamaForCausalLM):
    def forward(self, input_ids: Any = None, attention_mask: Any = None, **kwargs: Any) -> Any:
        return super().forward(input_ids=input_ids, attention_mask=attention_mask, **kwargs)


def test_a_model_that_cannot_keep_rows_apart_is_refused(tmp_path):
    with pytest.raises(ValueError, match="knows rows apart by position_ids"):
        make_trainer(tmp_path, WithoutPositions(tiny_model().config), padding_free=True)


# OPT hands its position ids to flash attention, and not to the mask of other kinds.
@pytest.mark.parametrize("model", [lambda: perturbed(Blind(tiny_model().config)), lambda: tiny_model("opt")])
def test_one_that_looks_able_is_tried_before_the_first_step(tmp_path, model):
    trainer = make_trainer(tmp_path, model(), padding_free=True)
    with pytest.raises(ValueError, match="does not keep the rows of one line apart"):
        trainer.train()
    assert trainer.state.global_step == 0


def test_a_forget_set_of_one_row_is_enough_to_try(tmp_path):
    sets = train_sets()
    sets["forget"] = sets["forget"].select([3])
    trainer = make_trainer(tmp_path, perturbed(Blind(tiny_model().config)), sets=sets, padding_free=True)
    with pytest.raises(ValueError, match="does not keep the rows of one line apart"):
        trainer.train()


@pytest.mark.parametrize("options", [dict(data_collator=lambda rows: rows), dict(step_wrappers="latent_adversarial")])
def test_what_needs_padded_rows_is_refused(tmp_path, options):
    with pytest.raises(ValueError, match="padding_free without"):
        make_trainer(tmp_path, tiny_model(), padding_free=True, **options)


class Slow:
    """A clock that stands still, but for the layout that is to be slow."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, slow_in_one_line: bool) -> None:
        self.forwards: list[bool] = []  # by whether the rows were in one line
        taken = RowLayout._seconds

        def seconds(layout: RowLayout, model: Any, batch: Any, compute_loss: Any) -> float:
            self.forwards.append("row_lengths" in batch)
            taken(layout, model, batch, compute_loss)
            return 2.0 if self.forwards[-1] == slow_in_one_line else 1.0

        monkeypatch.setattr(RowLayout, "_seconds", seconds)


@pytest.mark.parametrize("slow_in_one_line", [False, True])
def test_the_faster_layout_is_taken_and_a_resumed_run_keeps_it(tmp_path, monkeypatch, slow_in_one_line):
    options = dict(auto_padding_free=True, max_steps=2, save_strategy="steps", save_steps=1, forget_loss="simnpo")
    clock = Slow(monkeypatch, slow_in_one_line)
    trainer = make_trainer(tmp_path, tiny_model(), **options)
    trainer.train()
    assert clock.forwards == [True, False] * 4
    assert ("row_lengths" in next(iter(trainer.get_train_dataloader()))) is not slow_in_one_line
    trainer.close()
    plain = make_trainer(tmp_path / "plain", tiny_model(), **options | dict(auto_padding_free=False))
    plain.train()
    for one, other in zip(step_logs(trainer), step_logs(plain), strict=True):  # the trial is in no log
        assert one == pytest.approx(other, rel=1e-5)
    for name, weight in weights(plain.model).items():
        torch.testing.assert_close(weights(trainer.model)[name], weight, rtol=1e-5, atol=1e-5)
    clock = Slow(monkeypatch, not slow_in_one_line)
    again = make_trainer(tmp_path, tiny_model(), **options)
    again.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-1"))
    assert clock.forwards == [] and again._layout.in_one_line is not slow_in_one_line
    assert all(torch.equal(weight, weights(trainer.model)[name]) for name, weight in weights(again.model).items())


def test_rows_stay_padded_where_they_cannot_be_in_one_line(tmp_path, monkeypatch):
    clock = Slow(monkeypatch, slow_in_one_line=False)
    trainer = make_trainer(tmp_path, tiny_model("opt"), auto_padding_free=True, max_steps=1)
    trainer.train()
    assert clock.forwards == [] and not trainer._layout.in_one_line
    for other in (dict(padding_free=True), dict(distributed=DistributedSetup(2, zero_stage=2))):
        with pytest.raises(ValueError, match="auto_padding_free") as refused:
            setup = other.pop("distributed", trainer.distributed)
            require_setup(replace(trainer.args, **other), trainer.methods, trainer.model, setup)
        assert_four_parts(str(refused.value))
