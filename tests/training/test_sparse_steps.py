"""Figures where a step, a batch or a set is not like the others: sparse retain rows, unlike sets, left padding."""

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from transformers import DataCollatorForSeq2Seq, GPT2Config, GPT2LMHeadModel, T5Config, T5ForConditionalGeneration

from fixtures.bad_input import build, holdout, logged, rows, sets
from fixtures.models import tiny_model, tiny_tokenizer
from hf_unlearn.data.row_items import mismatch_row
from hf_unlearn.training.config import UnlearningConfig


def test_components_are_means_over_the_steps_that_had_them(tmp_path):
    """Three of four steps have no retain row: the logged NLL is that of the rows there were, not a quarter of it."""
    still = dict(learning_rate=0.0, per_device_train_batch_size=1, max_steps=8, logging_steps=4)
    every, sparse = build(tmp_path / "1", **still), build(tmp_path / "2", retain_ratio=0.25, **still)
    every.train()
    sparse.train()
    assert logged(sparse, "retain_nll") == pytest.approx(logged(every, "retain_nll"), rel=0.1)
    none = build(tmp_path / "3", retain_ratio=0.25, **{**still, "logging_steps": 1, "max_steps": 2})
    none.train()
    assert "retain_nll" not in none.state.log_history[0], "a window without retain rows has no retain NLL"


def test_the_guard_compares_with_the_set_that_it_watches(tmp_path):
    """Short answers first: the level before unlearning is that of the whole evaluation set, not of its beginning."""
    unlike = rows("retain", 20) + [{"prompt": f"and {i}?", "completion": " stone" * 40} for i in range(600)]
    trainer = build(
        tmp_path,
        eval_dataset={"retain": Dataset.from_list(unlike)},
        eval_strategy="steps",
        eval_steps=1,
        max_steps=1,
        learning_rate=0.0,
        stop_retain_nll_increase=0.01,
    )
    trainer.train()
    evaluated = next(log["eval_retain_nll"] for log in trainer.state.log_history if "eval_retain_nll" in log)
    assert trainer.baseline.retain_nll == pytest.approx(evaluated, rel=1e-6)
    assert trainer.stop_reason is None


@pytest.mark.parametrize("rule", [{"stop_forget_nll": 1.0}, {"stop_retain_nll_increase": 0.1}])
def test_a_rule_that_would_see_no_number_is_refused(tmp_path, rule):
    with pytest.raises(ValueError, match="the rule would never fire"):
        build(tmp_path, logging_strategy="no", **rule)
    evaluated = {"eval_dataset": sets(), "eval_strategy": "steps", "eval_steps": 1}
    build(tmp_path, logging_strategy="no", **evaluated, **rule)


def test_a_retain_rule_over_an_evaluation_that_never_runs_is_refused(tmp_path):
    with pytest.raises(ValueError, match="the rule would never fire"):
        build(tmp_path, retain_loss="none", eval_dataset=sets(), stop_retain_nll_increase=0.1)


@pytest.mark.parametrize(("metric", "greater"), [("nll", False), ("eval_nll", False), ("eval_forget_nll", True)])
def test_a_low_nll_is_best_unless_it_is_the_forget_sets(tmp_path, metric, greater):
    assert UnlearningConfig(str(tmp_path), metric_for_best_model=metric).greater_is_better is greater


def test_a_collator_that_pads_on_the_left_leaves_the_reference_where_it_was(tmp_path):
    """GPT-2 has absolute positions: without position ids policy and reference would read other positions."""
    tokenizer = tiny_tokenizer()
    tokenizer.padding_side = "left"
    size = dict(n_embd=32, n_layer=2, n_head=2, n_positions=128, pad_token_id=0, bos_token_id=1, eos_token_id=2)
    torch.manual_seed(0)
    trainer = build(
        tmp_path,
        model=GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), **size)),
        processing_class=tokenizer,
        data_collator=DataCollatorForSeq2Seq(tokenizer),
        forget_loss="npo",
        retain_loss="kl",
        max_steps=1,
    )
    trainer.train()
    (first, *_) = trainer.state.log_history
    assert first["forget/npo"] == pytest.approx(2 / 0.1 * 0.6931472, rel=1e-5)
    assert first["retain/kl"] == pytest.approx(0.0, abs=1e-5)


def test_mismatch_rows_mask_what_the_retain_row_masked():
    retain = {"input_ids": [5, 7, 8, 9, 10], "labels": [-100, 7, -100, -100, 10]}
    forget = {"input_ids": [3, 4, 6], "labels": [-100, -100, 6]}
    assert mismatch_row(forget, retain, None) == {
        "input_ids": [3, 4, 7, 8, 9, 10],
        "labels": [-100, -100, 7, -100, -100, 10],
    }
    assert mismatch_row(forget, retain, 4)["labels"] == [-100, -100, 7, -100]


def test_holdout_rows_that_are_retain_rows_are_refused(tmp_path):
    data = {**sets(), "holdout": Dataset.from_list(rows("retain", 4))}
    with pytest.raises(ValueError, match="4 holdout rows that are retain rows"):
        build(tmp_path, train_dataset=data, forget_nll_bound="holdout")
    assert build(tmp_path, train_dataset={**data, "holdout": holdout()}, forget_nll_bound="holdout")


def test_a_reference_that_shares_weights_with_the_model_is_refused(tmp_path):
    base = tiny_model()
    adapted = get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj"]))
    with pytest.raises(ValueError, match="a model that shares"):
        build(tmp_path, model=adapted, ref_model=base, forget_loss="npo")


def test_models_with_other_output_positions_are_refused(tmp_path):
    seq2seq = T5ForConditionalGeneration(T5Config(d_model=16, d_ff=16, num_layers=1, num_heads=2, d_kv=8))
    with pytest.raises(ValueError, match="encoder-decoder"):
        build(tmp_path, model=seq2seq)
    prompts = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)
    with pytest.raises(ValueError, match="PromptTuningConfig"):
        build(tmp_path, peft_config=prompts)


def test_a_trial_sets_the_arguments_of_losses_and_nothing_that_was_used_up(tmp_path, monkeypatch):
    def trainer_of(**trial):
        trainer = build(
            tmp_path, model=None, model_init=lambda: tiny_model(), forget_loss={"name": "npo", "beta": 0.1}
        )

        def set_up(self, _):
            for name, value in trial.items():
                setattr(self.args, name, value)

        monkeypatch.setattr("transformers.Trainer._hp_search_setup", set_up)
        trainer._hp_search_setup({"trial": 1})
        return trainer

    tuned = trainer_of(forget_loss={"name": "npo", "beta": 0.5}, retain_weight=7.0, seed=99)
    assert tuned.unlearning_objective.forget[0].beta == 0.5
    assert (tuned.unlearning_objective.retain_weight, tuned.train_dataset.seed) == (7.0, 99)
    for used_up in ({"forget_loss": "simnpo"}, {"max_length": 16}, {"retain_ratio": 2}):
        with pytest.raises(ValueError, match="one trainer per value"):
            trainer_of(**used_up)
