"""Arguments, attributes and events of `transformers.Trainer` are as there, or refused: tables, against Trainer."""

import os
from dataclasses import fields

import datasets
import numpy as np
import pytest
import torch
from transformers import (
    DataCollatorForSeq2Seq,
    DefaultFlowCallback,
    EarlyStoppingCallback,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.trainer_callback import ExportableState

from fixtures.bad_input import build, config, holdout, logged, rows, sets
from fixtures.batches import Batches, batches_of, flat
from fixtures.models import tiny_model, tiny_tokenizer
from hf_unlearn import UnlearningConfig, UnlearningTrainer
from hf_unlearn.evaluation import UnlearningEvalCallback, custom
from hf_unlearn.training.hooks.evaluation_loop import lend_trainer

SETS = sets(forget=8, retain=8)
ONE = datasets.Dataset.from_list(rows("other", 5))
EVALUATED = dict(eval_dataset=ONE, eval_strategy="steps", eval_steps=1)
SAVED = dict(save_strategy="steps", save_steps=1)


def metrics(prediction, compute_result=True):
    return {"positions": float(np.prod(prediction.label_ids.shape))} if compute_result else {}


# Fields of TrainingArguments that a run takes at another value than its default, many at a time.
RUNS = [
    dict(adam_beta1=0.5, adam_beta2=0.6, adam_epsilon=1e-3, weight_decay=0.1, warmup_steps=1, max_grad_norm=0.0)
    | dict(lr_scheduler_type="cosine_with_restarts", lr_scheduler_kwargs={"num_cycles": 2}, do_predict=True),
    dict(optim="adamw_torch", gradient_accumulation_steps=2)
    | dict(num_train_epochs=1, use_cache=True, tf32=False, debug="underflow_overflow", skip_memory_metrics=False),
    dict(gradient_checkpointing=True, gradient_checkpointing_kwargs={"use_reentrant": False}, bf16=True)
    | dict(torch_empty_cache_steps=1, neftune_noise_alpha=1.0, full_determinism=False, save_on_each_node=True),
    dict(
        activation_checkpointing=True, activation_checkpointing_kwargs={"use_reentrant": False}, ignore_data_skip=True
    ),
    dict(logging_strategy="steps", logging_first_step=True, logging_steps=2, log_on_each_node=False)
    | dict(
        log_level="error", log_level_replica="error", logging_nan_inf_filter=True, include_num_input_tokens_seen=True
    ),
    dict(eval_on_start=True, eval_delay=2, eval_do_concat_batches=True, per_device_eval_batch_size=2, **EVALUATED)
    | dict(include_for_metrics=["inputs", "loss"], eval_accumulation_steps=1, compute_metrics=metrics, do_eval=True),
    dict(
        batch_eval_metrics=True, eval_use_gather_object=True, compute_metrics=metrics, bf16_full_eval=True, **EVALUATED
    )
    | dict(prediction_loss_only=False, restore_callback_states_from_checkpoint=True, run_name="x", project="p"),
    dict(save_only_model=True, save_total_limit=1, load_best_model_at_end=True, greater_is_better=False, **SAVED)
    | dict(metric_for_best_model="eval_loss", **EVALUATED),
    dict(dataloader_num_workers=1, dataloader_prefetch_factor=2, dataloader_persistent_workers=True)
    | dict(dataloader_multiprocessing_context="fork", dataloader_in_order=False, dataloader_drop_last=True)
    | dict(dataloader_pin_memory=False, seed=3, data_seed=4, train_sampling_strategy="group_by_length"),
    dict(ddp_find_unused_parameters=True, ddp_bucket_cap_mb=1, ddp_broadcast_buffers=True, ddp_static_graph=True)
    | dict(ddp_timeout=100, do_train=True, enable_jit_checkpoint=True, fp16_full_eval=True)
    | dict(accelerator_config={"split_batches": True, "even_batches": False, "use_seedable_sampler": False}),
]
# (value, what the error says)
REFUSED = {
    "average_tokens_across_devices": (False, "average_tokens_across_devices=True"),
    "optim_args": ("eps=1e-3", "optim_args must be left out"),
    "optim_target_modules": (["q_proj"], "optim_target_modules must be left out"),
    "liger_kernel_config": ({"rope": True}, "liger_kernel_config must be left out"),
    "label_smoothing_factor": (0.1, "label_smoothing_factor=0.0"),
    "fp16": (True, "fp16=True on a GPU"),
    "fsdp": (True, "FSDP, which the argument fsdp asks for"),
    "label_names": (["x"], "label_names=None"),
    "length_column_name": ("cost", "a column 'cost'"),
    "remove_unused_columns": (True, "remove_unused_columns=False"),
    "report_to": ("nothing", "report_to to name what is installed"),
    "accelerator_config": ({"dispatch_batches": True}, "dispatch_batches=None"),
}
# Fields that other tests are of, and those that do nothing on one process without a network.
ELSEWHERE = {
    "test_trainer_arguments": ["auto_find_batch_size", "torch_compile", "torch_compile_backend", "torch_compile_mode"],
    "test_config, test_liger": ["use_liger_kernel", "parallelism_config", "fsdp_config"],
    "distributed": ["deepspeed", "local_rank", "ddp_backend"],
    "hub": ["push_to_hub", "hub_token", "hub_private_repo", "hub_model_id", "hub_strategy", "hub_always_push"],
    "trackio": ["hub_revision", "trackio_space_id", "trackio_bucket_id", "trackio_static_space_id"],
    "here": ["resume_from_checkpoint"],
    "fixtures": ["output_dir", "per_device_train_batch_size", "max_steps", "learning_rate", "use_cpu", "disable_tqdm"],
}


def test_the_table_has_every_argument():
    """A new one of a new release of transformers is to be looked at before it is let through."""
    known = (
        {name for run in RUNS for name in run} | REFUSED.keys() | {n for names in ELSEWHERE.values() for n in names}
    )
    assert {field.name for field in fields(TrainingArguments)} == known - {"eval_dataset", "compute_metrics"}


@pytest.mark.parametrize("arguments", RUNS, ids=lambda run: next(iter(run)))
def test_arguments_that_work(tmp_path, arguments):
    trainer = build(tmp_path, train_dataset=SETS, forget_loss="npo", **arguments)
    assert trainer.train().global_step == 2
    if "eval_dataset" in arguments:
        found = trainer.evaluate()
        assert np.isfinite(found["eval_nll"])
        assert ("eval_positions" in found) == ("compute_metrics" in arguments)


@pytest.mark.parametrize("name", REFUSED)
def test_arguments_that_are_refused(tmp_path, name):
    value, message = REFUSED[name]
    more = dict(train_sampling_strategy="group_by_length") if name == "length_column_name" else {}
    before = dict(os.environ)
    with pytest.raises(ValueError, match=message):
        build(tmp_path, **{name: value}, **more)
    # Nothing is left behind by which a later run would be taken for another.
    assert {key: value for key, value in os.environ.items() if before.get(key) != value} == {}
    assert not build(tmp_path).is_fsdp_enabled


def test_a_refusal_that_only_the_trainer_can_make_leaves_no_environment_behind(tmp_path):
    args = config(tmp_path)
    args.fsdp, args.fsdp_config, args.fsdp_plugin_args = True, {"xla": False}, {}
    with pytest.raises(ValueError, match="distributed"):
        UnlearningTrainer(tiny_model(), args, train_dataset=SETS, processing_class=tiny_tokenizer())
    assert "ACCELERATE_USE_FSDP" not in os.environ
    assert build(tmp_path).train().global_step == 2


# Attributes that a user reads and sets


def test_datasets_set_afterwards(tmp_path):
    trainer = build(tmp_path, eval_dataset=sets())
    with pytest.raises(ValueError, match="the train_dataset that the trainer was built with"):
        trainer.train_dataset = sets()
    trainer.train_dataset = trainer.train_dataset
    for later in ({"a": rows("a", 3)}, ONE, trainer.eval_dataset):
        trainer.eval_dataset = later
        expected = build(tmp_path, eval_dataset=later).evaluate()
        found = trainer.evaluate()
        name = "eval_a_nll" if "eval_a_nll" in expected else "eval_nll"
        if name in expected:
            assert found[name] == pytest.approx(expected[name])
        assert found.keys() == expected.keys()
    ruled = build(tmp_path, train_dataset=sets() | {"holdout": holdout()}, stop_forget_nll="holdout")
    with pytest.raises(ValueError, match="in a run with stop rules"):
        ruled.eval_dataset = ONE


@pytest.mark.parametrize("own", [False, True])
def test_a_collator_is_the_users_own(tmp_path, own):
    collator = Batches() if own else DataCollatorForSeq2Seq(tiny_tokenizer())
    trainer = build(tmp_path, data_collator=collator)
    assert trainer.data_collator is collator
    trainer.data_collator = other = Batches()
    trainer.train()
    assert set(flat(other.forget)) == set(range(8))


def test_seeds_set_before_another_run(tmp_path):
    def order(**changes):
        seen.clear()
        for name, value in changes.items():
            setattr(trainer.args, name, value)
        trainer.train()
        return flat(seen.forget), flat(seen.retain)

    seen = Batches()
    trainer = build(tmp_path, data_collator=seen, learning_rate=0.0)
    first, again, other, data_seed = order(), order(), order(seed=7), order(data_seed=42)
    assert first == again and other == tuple(map(flat, (b := batches_of(tmp_path, seed=7)) and (b.forget, b.retain)))
    assert first[0] != other[0] and first[1] != other[1] and data_seed == first


def test_a_column_of_lengths(tmp_path):
    """What a row costs is the user's to say, as in Trainer; batches of two then hold rows of like cost."""
    cost = [5, 1, 9, 2, 8, 3, 7, 4]
    data = {"forget": SETS["forget"].add_column("cost", cost), "retain": SETS["retain"].add_column("cost", cost)}
    for strategy in ("group_by_length", "batch_rebalance"):
        arguments = dict(train_sampling_strategy=strategy, per_device_train_batch_size=8, max_steps=1)
        seen = batches_of(tmp_path, train_dataset=data, length_column_name="cost", **arguments)
        assert [cost[row] for row in seen.forget[0]] == sorted(cost, reverse=True)
        assert [cost[row] for row in seen.retain[0]] == sorted(cost, reverse=True)


def test_a_config_says_where_to_resume(tmp_path):
    arguments = dict(learning_rate=1e-2, max_steps=3, **SAVED)
    whole = build(tmp_path, **arguments)
    whole.train()
    for value, step in (("true", 3), (str(tmp_path / "checkpoint-2"), 2)):
        resumed = build(tmp_path, resume_from_checkpoint=value, **arguments | dict(max_steps=4))
        resumed.train()
        assert resumed.record.resumed_from == step
    again = build(tmp_path, resume_from_checkpoint=str(tmp_path / "checkpoint-2"), **arguments)
    again.train(resume_from_checkpoint=False)
    assert again.record.resumed_from == 0 and logged(again, "loss") == logged(whole, "loss")


def test_how_often_it_logs_and_evaluates_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr("hf_unlearn.training.config.logger.warning_once", lambda text: said.append(text))
    said: list[str] = []
    args = UnlearningConfig(output_dir=str(tmp_path), eval_strategy="steps", use_cpu=True)
    assert args.eval_steps == args.logging_steps == 10 and "every 10 steps" in said[0]
    UnlearningConfig(output_dir=str(tmp_path), eval_strategy="steps", eval_steps=10, use_cpu=True)
    assert len(said) == 1
    with pytest.raises(ValueError, match="eval_retain_loss"):
        build(tmp_path, load_best_model_at_end=True, **SAVED, **EVALUATED | dict(eval_dataset=sets()))


# Public methods and attributes of Trainer's class, by the file that tests them.
METHODS = {
    "here": {"add_callback", "pop_callback", "remove_callback", "get_eval_dataloader", "get_train_dataloader"}
    | {"get_test_dataloader", "num_examples", "predict", "prediction_step", "evaluation_loop", "train"}
    | {"loss_is_scaled_for_ga", "log", "set_initial_training_values", "get_batch_samples", "evaluate"},
    "test_search": {"hyperparameter_search", "call_model_init"},
    "test_one_step": {"compute_loss", "training_step", "compute_loss_context_manager"},
    "test_trainer_arguments": {"create_optimizer", "create_scheduler", "get_optimizer_cls_and_kwargs"}
    | {"save_model", "create_model_card", "push_to_hub", "init_hf_repo"},
    "Trainer's own, untouched": {"create_optimizer_and_scheduler", "get_decay_parameter_names", "store_flos", "end"}
    | {"get_learning_rates", "get_num_trainable_parameters", "get_optimizer_group", "log_metrics", "metrics_format"}
    | {"save_metrics", "save_state", "floating_point_ops", "is_local_process_zero", "is_world_process_zero"}
    | {"get_total_train_batch_size", "get_sp_size", "get_cp_size", "get_tp_size", "autocast_smart_context_manager"}
    | {"create_accelerator_and_postprocess"},
}


def test_the_table_has_every_method(tmp_path):
    """A new one of a new release of transformers is to be looked at before it is let through."""
    public = {name for name in vars(Trainer) if not name.startswith("_")}
    assert public == set().union(*METHODS.values())
    trainer = build(tmp_path)
    output = trainer.train()
    assert trainer.get_num_trainable_parameters() == sum(weight.numel() for weight in trainer.model.parameters())
    assert trainer.get_learning_rates() and trainer.get_optimizer_group() and trainer.state.total_flos > 0
    trainer.save_metrics("train", output.metrics)
    trainer.save_state()
    assert {"train_results.json", "all_results.json", "trainer_state.json"} <= {p.name for p in tmp_path.iterdir()}


# Against Trainer: events, callbacks, files, predictions


class Recorder(TrainerCallback):
    """The events that it is told of, in order."""

    def __init__(self) -> None:
        self.events: list[str] = []


for _event in (name for name in vars(TrainerCallback) if name.startswith("on_")):
    setattr(Recorder, _event, lambda self, *_, _event=_event, **__: self.events.append(_event))


def plain(folder, model=None, **arguments) -> Trainer:
    """Trainer itself on as many tokenised rows as there are forget rows, with the arguments of `build`."""
    own = {name: arguments.pop(name) for name in ("eval_dataset", "callbacks", "compute_metrics") if name in arguments}
    args = config(folder, **arguments)
    prepare = build(folder)._prepared.options.tokenize
    if "eval_dataset" in own:
        own["eval_dataset"] = prepare(own["eval_dataset"], "eval").select_columns(["input_ids", "labels"])
    train = prepare(SETS["forget"], "forget").select_columns(["input_ids", "labels"])
    collator = DataCollatorForSeq2Seq(tiny_tokenizer())
    return Trainer(model or tiny_model(), args, collator, train, processing_class=tiny_tokenizer(), **own)


@pytest.mark.parametrize(
    "arguments",
    [
        dict(),
        dict(logging_steps=2, max_steps=5, save_strategy="steps", save_steps=3, eval_steps=2, eval_strategy="steps"),
        dict(max_steps=-1, num_train_epochs=2, eval_strategy="epoch", save_strategy="epoch", logging_strategy="epoch"),
        dict(gradient_accumulation_steps=2, eval_on_start=True, eval_delay=1, eval_strategy="steps", eval_steps=1),
    ],
    ids=["plain", "steps", "epochs", "accumulated"],
)
def test_events_come_as_in_trainer(tmp_path, arguments):
    ours, theirs = Recorder(), Recorder()
    build(tmp_path / "ours", train_dataset=SETS, eval_dataset=ONE, callbacks=[ours], **arguments).train()
    plain(tmp_path / "theirs", eval_dataset=ONE, callbacks=[theirs], **arguments).train()
    assert ours.events == theirs.events and "on_step_end" in ours.events


def test_callbacks_are_the_users(tmp_path):
    first, second = Recorder(), EarlyStoppingCallback(3)
    trainer = build(tmp_path, callbacks=[first, second, Recorder], eval_dataset=ONE)
    listed = trainer.callback_handler.callbacks
    assert type(listed[0]) is DefaultFlowCallback
    theirs = [type(c) for c in plain(tmp_path, callbacks=[first, second, Recorder]).callback_handler.callbacks]
    assert (
        [type(c) for c in listed if type(c) in theirs]
        == theirs
        == [
            DefaultFlowCallback,
            Recorder,
            EarlyStoppingCallback,
            Recorder,
            PrinterCallback,
        ]
    )
    assert trainer.pop_callback(second) is second and second not in listed
    trainer.remove_callback(Recorder)
    assert first not in listed
    assert trainer.pop_callback(EarlyStoppingCallback) is None
    trainer.add_callback(EarlyStoppingCallback)
    assert isinstance(listed[-1], EarlyStoppingCallback)


def test_a_suite_stands_before_early_stopping_and_nothing_else_moves():
    suite = UnlearningEvalCallback(custom(forget=rows("forget", 2), retain=rows("retain", 2)))
    flow, early, last = DefaultFlowCallback(), EarlyStoppingCallback(), Recorder()
    for given, expected in (
        ([flow, early, last, suite], [flow, suite, early, last]),
        ([flow, last, suite, early], [flow, last, suite, early]),
        ([flow, last, suite], [flow, last, suite]),
    ):
        lend_trainer(given, last)
        assert given == expected


class Counter(TrainerCallback, ExportableState):
    """Counts steps over checkpoints, and stops or saves where it is told to."""

    def __init__(self, stop: int = 0, save: int = 0, steps: int = 0) -> None:
        self.stop, self.save, self.steps = stop, save, steps

    def on_step_end(self, args, state, control, **kwargs):
        self.steps += 1
        control.should_training_stop |= self.steps == self.stop
        control.should_save |= self.steps == self.save
        return control

    def state(self):
        return {"args": {"stop": self.stop, "save": self.save}, "attributes": {"steps": self.steps}}


def test_a_stateful_callback_is_restored_and_controls_the_run(tmp_path):
    trainer = build(tmp_path, callbacks=[Counter(stop=3, save=2)], max_steps=9)
    trainer.train()
    assert trainer.state.global_step == 3 and (tmp_path / "checkpoint-2").is_dir()
    resumed = build(
        tmp_path,
        callbacks=[Counter(stop=8)],
        max_steps=9,
        restore_callback_states_from_checkpoint=True,
        save_strategy="no",
    )
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    counter = next(c for c in resumed.callback_handler.callbacks if isinstance(c, Counter))
    assert (counter.stop, counter.steps, resumed.state.global_step) == (3, 3, 3)


def test_a_checkpoint_has_the_files_of_trainers(tmp_path):
    build(tmp_path / "ours", train_dataset=SETS, **SAVED, save_total_limit=1).train()
    plain(tmp_path / "theirs", **SAVED, save_total_limit=1).train()
    ours, theirs = ({p.name for p in (tmp_path / who).glob("checkpoint-*")} for who in ("ours", "theirs"))
    assert ours == theirs == {"checkpoint-2"}
    files, expected = ({p.name for p in (tmp_path / who / "checkpoint-2").iterdir()} for who in ("ours", "theirs"))
    assert expected <= files


def test_predictions_are_those_of_trainer(tmp_path):
    def model():
        loaded = tiny_model()
        loaded.config.output_hidden_states = True
        return loaded

    ours = build(tmp_path, model=model(), per_device_eval_batch_size=2)
    theirs = plain(tmp_path, model=model(), per_device_eval_batch_size=2)
    tokens = ours._prepared.options.tokenize(ONE, "eval").select_columns(["input_ids", "labels"])
    for ignored in (None, ["hidden_states"], ["logits"]):
        found, expected = ours.predict(ONE, ignored), theirs.predict(tokens, ignored)
        assert np.array_equal(found.label_ids, expected.label_ids)
        shapes = torch.utils._pytree.tree_map(np.shape, (found.predictions, expected.predictions))
        assert shapes[0] == shapes[1]
        for a, b in zip(*map(torch.utils._pytree.tree_leaves, (found.predictions, expected.predictions)), strict=True):
            # Trainer fills up with -100, and behind the end of a row both have what the padding made.
            np.testing.assert_allclose(a, b, atol=1e-4)
    prefix = ours.predict(ONE, metric_key_prefix="final").metrics
    loop = ours.evaluation_loop(ours.get_test_dataloader(ONE), "Evaluation", True, None, "loop").metrics
    assert prefix["final_nll"] == loop["loop_nll"]
    assert prefix["final_loss"] == pytest.approx(theirs.predict(tokens).metrics["test_loss"], rel=0.2)


def test_loaders_have_the_lengths_of_trainers(tmp_path):
    for arguments in (dict(), dict(dataloader_drop_last=True)):
        shared = dict(per_device_train_batch_size=3, per_device_eval_batch_size=2, eval_dataset=ONE, **arguments)
        ours, theirs = build(tmp_path, train_dataset=SETS, **shared), plain(tmp_path, **shared)
        for name in ("get_train_dataloader", "get_eval_dataloader"):
            loader, expected = getattr(ours, name)(), getattr(theirs, name)()
            assert len(loader) == len(expected) and loader.total_batch_size == expected.total_batch_size
            assert ours.num_examples(loader) == theirs.num_examples(expected)


class WithoutDataset(UnlearningTrainer):
    """A loader of which nothing is known but its batches."""

    def get_train_dataloader(self):
        loader = super().get_train_dataloader()

        class Batchwise:
            def __iter__(self):
                return iter(loader)

            def __len__(self):
                return len(loader)

        return Batchwise()


def test_a_loader_without_a_dataset(tmp_path):
    ours = build(tmp_path, trainer_class=WithoutDataset, max_steps=-1, num_train_epochs=1)
    ours.train()
    usual = build(tmp_path, max_steps=-1, num_train_epochs=1)
    usual.train()
    assert logged(ours, "loss") == logged(usual, "loss")
