"""Every argument of Trainer and TrainingArguments works here too. What they do to the gradient is tested elsewhere."""

import gc
import json
import weakref
from types import SimpleNamespace

import datasets
import pytest
import torch
from peft import AutoPeftModelForCausalLM, LoraConfig
from transformers import DataCollatorForSeq2Seq, EarlyStoppingCallback, LlamaForCausalLM, Trainer
from transformers.trainer_utils import HPSearchBackend

from fixtures.bad_input import CANARY, TorchStream, build, logged, rows, sets, weights
from fixtures.batches import batches_of, flat
from fixtures.models import tiny_model, tiny_tokenizer
from hf_unlearn import DataCollatorForUnlearning, UnlearningTrainer
from hf_unlearn.data import Role

pytest_plugins = ["fixtures.hub"]

LORA = dict(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=True)


def losses(folder, **arguments) -> list[float]:
    """The logged losses of a run."""
    trainer = build(folder, **arguments)
    trainer.train()
    return logged(trainer, "loss")


def rows_only(features):
    """A collator as a Trainer script has it: of plain rows, without a word about roles."""
    batch = DataCollatorForUnlearning(pad_token_id=0)(features)
    return {name: batch[name] for name in ("input_ids", "attention_mask", "labels")}


@pytest.mark.parametrize(
    "collator", [DataCollatorForSeq2Seq(tiny_tokenizer()), rows_only], ids=["transformers", "own"]
)
def test_a_plain_collator_of_rows_pads_the_paired_rows(tmp_path, collator):
    arguments = dict(forget_loss=["npo", {"name": "random_mismatch", "k": 2}], retain_loss="kl", max_steps=3)
    plain = losses(tmp_path / "ours", **arguments)
    assert losses(tmp_path / "theirs", data_collator=collator, **arguments) == pytest.approx(plain, rel=1e-6)


def naive_nll(model, examples) -> float:
    """NLL per answer token of prompt/completion rows, one at a time, from the model's own logits."""
    tokenizer = tiny_tokenizer()
    total, count = 0.0, 0
    model.eval()
    for row in examples:
        prompt = tokenizer(row["prompt"])["input_ids"]
        ids = tokenizer(row["prompt"] + row["completion"])["input_ids"] + [tokenizer.eos_token_id]
        with torch.no_grad():
            log_probabilities = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
        for place in range(len(prompt), len(ids)):
            total -= float(log_probabilities[place - 1, ids[place]])
            count += 1
    return total / count


# The order of rows


def test_random_order(tmp_path):
    seen = batches_of(tmp_path, max_steps=-1, num_train_epochs=3)
    epochs = [flat(seen.forget[start : start + 2]) for start in (0, 2, 4)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(8))] * 3
    assert len({tuple(epoch) for epoch in epochs}) == 3
    # 24 retain rows of 12: every one of them twice, and none twice before all were used once.
    retain = flat(seen.retain)
    assert sorted(retain[:12]) == sorted(retain[12:]) == list(range(12))


def test_sequential_order(tmp_path):
    seen = batches_of(tmp_path, max_steps=-1, num_train_epochs=2, train_sampling_strategy="sequential")
    assert flat(seen.forget) == [*range(8)] * 2
    assert sorted(flat(seen.retain)[:12]) == list(range(12))


def test_order_by_length(tmp_path):
    def spread(strategy):
        seen = batches_of(tmp_path, train_sampling_strategy=strategy, **arguments)
        assert sorted(flat(seen.forget)) == list(range(64)) and sorted(flat(seen.retain)) == list(range(64))
        return sum(max(lengths[row] for row in batch) - min(lengths[row] for row in batch) for batch in seen.forget)

    data = sets(forget=64, retain=64)
    arguments = dict(train_dataset=data, max_steps=-1, num_train_epochs=1, per_device_train_batch_size=2)
    lengths = [len(prompt + completion) for prompt, completion in zip(*data["forget"][:].values(), strict=True)]
    assert 4 * spread("group_by_length") < spread("random")


def test_balanced_order(tmp_path):
    seen = batches_of(tmp_path, max_steps=-1, num_train_epochs=2, train_sampling_strategy="batch_rebalance")
    assert sorted(flat(seen.forget[:2])) == sorted(flat(seen.forget[2:])) == list(range(8))


def test_a_last_batch_that_is_dropped(tmp_path):
    six = sets(forget=6)
    kept = batches_of(tmp_path / "kept", train_dataset=six, max_steps=-1, num_train_epochs=1)
    dropped = batches_of(tmp_path, train_dataset=six, max_steps=-1, num_train_epochs=1, dataloader_drop_last=True)
    assert [len(batch) for batch in kept.forget] == [4, 2]
    assert dropped.forget == kept.forget[:1]


def test_persistent_workers_see_every_epochs_order(tmp_path):
    arguments = dict(max_steps=-1, num_train_epochs=2, forget_loss="random_mismatch", learning_rate=0.0)
    here = losses(tmp_path / "here", **arguments)
    there = losses(tmp_path, dataloader_num_workers=2, dataloader_persistent_workers=True, **arguments)
    assert there == pytest.approx(here, rel=1e-6)
    assert here[:2] != here[2:], "the second epoch has another order and other draws"


@pytest.mark.parametrize("seeds", [dict(seed=7), dict(data_seed=7)])
def test_seeds_of_the_order(tmp_path, seeds):
    first = batches_of(tmp_path / "first", max_steps=-1)
    again = batches_of(tmp_path / "again", max_steps=-1)
    other = batches_of(tmp_path, max_steps=-1, **seeds)
    assert first.forget == again.forget and first.retain == again.retain
    assert other.forget != first.forget and other.retain != first.retain


# Streams


def streamed(kind: str, examples) -> object:
    return TorchStream(examples.to_list()) if kind == "torch" else examples.to_iterable_dataset(num_shards=2)


@pytest.mark.parametrize("kind", ["datasets", "torch"])
@pytest.mark.parametrize("names", [("forget",), ("retain",), ("forget", "retain")], ids="+".join)
@pytest.mark.parametrize("workers", [0, 1])
def test_streams_train_as_sets_do(tmp_path, kind, names, workers):
    data = sets(forget=8, retain=8)
    streams = {**data, **{name: streamed(kind, data[name]) for name in names}}
    trainer = build(tmp_path, train_dataset=streams, dataloader_num_workers=workers, learning_rate=0.0)
    trainer.train()
    assert trainer.state.global_step == 2
    # Two batches of four are all eight rows of either set, each once, in whichever order.
    whole = build(
        tmp_path / "whole", train_dataset=data, learning_rate=0.0, per_device_train_batch_size=8, max_steps=1
    )
    whole.train()
    counts = torch.tensor([answer_tokens(trainer, batch) for batch in trainer.get_train_dataloader()])
    weighed = (counts / counts.sum(0)).T
    for name, share in zip(("forget_nll", "retain_nll"), weighed, strict=True):
        mean = float((share * torch.tensor(logged(trainer, name))).sum())
        assert mean == pytest.approx(logged(whole, name)[0], rel=1e-5)


def answer_tokens(trainer, batch) -> list[int]:
    lengths = (batch["labels"] != -100).sum(1)
    return [int(lengths[batch["role"] == role].sum()) for role in (Role.FORGET, Role.RETAIN)]


def test_a_stream_needs_max_steps(tmp_path):
    streams = {**sets(), "forget": TorchStream(rows("forget", 8))}
    with pytest.raises(ValueError, match="max_steps"):
        build(tmp_path, train_dataset=streams, max_steps=-1)


@pytest.mark.parametrize("retain_loss", ["nll", "kl"])
def test_a_stream_with_a_reference(tmp_path, retain_loss):
    streams = {**sets(), "forget": TorchStream(rows("forget", 8))}
    trainer = build(tmp_path, train_dataset=streams, forget_loss="npo", retain_loss=retain_loss)
    trainer.train()
    assert str(trainer.reference.plan) == "copy"
    # At the reference, (2 / beta) ln 2.
    assert logged(trainer, "forget/npo")[0] == pytest.approx(20 * 0.693147, rel=1e-5)


# Batches that fit, models that are best


class OutOfMemoryTwice(UnlearningTrainer):
    """Runs out of memory, as it says, until the batch is small enough."""

    def training_step(self, model, inputs, num_items_in_batch=None):
        if int((inputs["role"] == Role.FORGET).sum()) > 6:
            raise RuntimeError("CUDA out of memory.")
        return super().training_step(model, inputs, num_items_in_batch)


def test_auto_find_batch_size(tmp_path, monkeypatch):
    monkeypatch.setattr("fixtures.bad_input.UnlearningTrainer", OutOfMemoryTwice)
    arguments = dict(forget_loss="npo", max_steps=-1, train_dataset=sets(forget=12))
    found = build(tmp_path / "found", auto_find_batch_size=True, per_device_train_batch_size=8, **arguments)
    found.train()
    assert found.state.train_batch_size == 6
    given = build(tmp_path, per_device_train_batch_size=6, **arguments)
    given.train()
    assert logged(found, "loss") == pytest.approx(logged(given, "loss"))
    assert torch.equal(weights(found.model), weights(given.model))


EVALUATED = dict(eval_strategy="steps", eval_steps=1, save_strategy="steps", save_steps=1, max_steps=5)


def test_the_best_model_by_its_retain_nll(tmp_path):
    trainer = build(
        tmp_path,
        eval_dataset=sets(),
        load_best_model_at_end=True,
        metric_for_best_model="eval_retain_nll",
        retain_weight=0.0,
        **EVALUATED,
    )
    trainer.train()
    nlls = logged(trainer, "eval_retain_nll")
    assert nlls.index(min(nlls)) < 4, "ascent alone costs the retain set"
    assert trainer.state.best_metric == min(nlls)
    assert trainer.state.best_global_step == 1 + nlls.index(min(nlls))
    assert trainer.evaluate()["eval_retain_nll"] == pytest.approx(min(nlls), rel=1e-5)


def test_early_stopping(tmp_path):
    trainer = build(
        tmp_path,
        eval_dataset=sets(),
        callbacks=[EarlyStoppingCallback(early_stopping_patience=2)],
        metric_for_best_model="eval_retain_nll",
        load_best_model_at_end=True,
        retain_weight=0.0,
        **{**EVALUATED, "max_steps": 30},
    )
    trainer.train()
    nlls = logged(trainer, "eval_retain_nll")
    assert len(nlls) == trainer.state.global_step == nlls.index(min(nlls)) + 3 < 30


# Evaluation


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_evaluation_is_exact_whatever_the_batch(tmp_path, batch_size):
    data = sets()
    trainer = build(tmp_path, eval_dataset=data, per_device_eval_batch_size=batch_size)
    metrics = trainer.evaluate()
    for name in ("forget", "retain"):
        expected = naive_nll(tiny_model(), data[name])
        assert metrics[f"eval_{name}_nll"] == pytest.approx(expected, rel=1e-5)
        assert metrics[f"eval_{name}_loss"] == metrics[f"eval_{name}_nll"]
        each = [naive_nll(tiny_model(), [row]) for row in data[name]]
        mean = sum(torch.tensor(each).neg().exp().tolist()) / len(each)
        assert metrics[f"eval_{name}_probability"] == pytest.approx(mean, rel=1e-4)


@pytest.mark.parametrize(("strategy", "count"), [("steps", 3), ("epoch", 2), ("no", 0)])
def test_when_it_evaluates(tmp_path, strategy, count):
    arguments = dict(eval_strategy=strategy, eval_steps=1 if strategy == "steps" else None)
    trainer = build(tmp_path, eval_dataset=sets(), **arguments, max_steps=3)
    trainer.train()
    assert len(logged(trainer, "eval_forget_nll")) == len(logged(trainer, "eval_retain_nll")) == count


def test_one_plain_evaluation_set(tmp_path):
    plain = rows("something else", 5)
    trainer = build(tmp_path, eval_dataset=plain, eval_strategy="epoch", per_device_eval_batch_size=2)
    assert trainer.evaluate()["eval_nll"] == pytest.approx(naive_nll(trainer.model, plain), rel=1e-5)
    trainer.train()
    assert logged(trainer, "eval_loss") == logged(trainer, "eval_nll")


@pytest.mark.parametrize("persistent", [False, True])
def test_other_rows_to_evaluate(tmp_path, persistent):
    workers = dict(dataloader_num_workers=1, dataloader_persistent_workers=True) if persistent else {}
    trainer = build(tmp_path, eval_dataset=rows("own", 4), **workers)
    a, b = rows("first", 5), rows("second and longer", 3)
    expected = [naive_nll(trainer.model, examples) for examples in (a, b, rows("own", 4))]
    # One after the other: with persistent workers, Trainer itself would go on with the first set's rows.
    found = [trainer.evaluate(a), trainer.evaluate(b), trainer.evaluate()]
    assert [metrics["eval_nll"] for metrics in found] == pytest.approx(expected, rel=1e-5)
    named = trainer.evaluate({"a": a, "b": datasets.Dataset.from_list(b)}, metric_key_prefix="final")
    assert [named["final_a_nll"], named["final_b_nll"]] == pytest.approx(expected[:2], rel=1e-5)


@pytest.mark.parametrize("kind", ["datasets", "torch"])
def test_a_stream_to_evaluate(tmp_path, kind):
    data = datasets.Dataset.from_list(rows("other", 5))
    trainer = build(tmp_path, eval_dataset=streamed(kind, data), per_device_eval_batch_size=2)
    assert trainer.evaluate()["eval_nll"] == pytest.approx(naive_nll(trainer.model, data), rel=1e-5)


def test_predict(tmp_path):
    examples = rows("other", 5)
    trainer = build(tmp_path, per_device_eval_batch_size=2)
    output = trainer.predict(examples)
    assert output.metrics["test_nll"] == pytest.approx(naive_nll(trainer.model, examples), rel=1e-5)
    assert output.predictions.shape == (*output.label_ids.shape, trainer.model.config.vocab_size)
    # The logits are those of every position, and Trainer's padding has no label.
    logits, labels = torch.tensor(output.predictions)[:, :-1], torch.tensor(output.label_ids)[:, 1:]
    kept = labels != -100
    nll = torch.nn.functional.cross_entropy(logits[kept].double(), labels[kept])
    assert float(nll) == pytest.approx(output.metrics["test_nll"], rel=1e-5)


def test_metrics_from_logits_as_in_trainer(tmp_path):
    def best_token(logits, labels):
        return logits.argmax(-1)

    def accuracy(output):
        kept = output.label_ids[:, 1:] != -100
        right = (output.predictions[:, :-1] == output.label_ids[:, 1:]) & kept
        found["inputs"], found["losses"] = output.inputs, output.losses
        return {"accuracy": right.sum() / kept.sum()}

    found: dict = {}
    data = rows("other", 5)
    trainer = build(
        tmp_path,
        compute_metrics=accuracy,
        preprocess_logits_for_metrics=best_token,
        include_for_metrics=["inputs", "loss"],
        per_device_eval_batch_size=2,
    )
    metrics = trainer.evaluate(data)
    # Plain Trainer on the same rows, padded by the same collator.
    args = trainer.args
    plain = Trainer(
        model=tiny_model(),
        args=args,
        data_collator=lambda items: {
            name: values
            for name, values in DataCollatorForUnlearning(pad_token_id=0)(items).items()
            if name in ("input_ids", "attention_mask", "labels")
        },
        compute_metrics=accuracy,
        preprocess_logits_for_metrics=best_token,
    )
    tokenised = trainer._prepared.options.tokenize(data, "eval")
    assert metrics["eval_accuracy"] == pytest.approx(plain.evaluate(tokenised)["eval_accuracy"])
    assert found["inputs"] is not None and len(found["losses"]) == 5
    assert metrics["eval_nll"] == pytest.approx(naive_nll(tiny_model(), data), rel=1e-5)


def test_a_trainer_for_evaluation_alone(tmp_path):
    trainer = build(tmp_path, train_dataset=None, eval_dataset=sets())
    assert trainer.evaluate()["eval_retain_nll"] == pytest.approx(naive_nll(tiny_model(), sets()["retain"]), rel=1e-5)
    with pytest.raises(ValueError, match="train_dataset"):
        trainer.train()


# Optimizers, models, runs


def test_optimizers_of_ones_own(tmp_path):
    plain = dict(optim="sgd", lr_scheduler_type="constant")
    expected = losses(tmp_path / "expected", **plain)
    model = tiny_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    arguments = dict(model=model, optimizers=(optimizer, scheduler), learning_rate=9.0)
    assert losses(tmp_path / "pair", **arguments) == pytest.approx(expected, rel=1e-5)
    kind = (torch.optim.SGD, {"lr": 1e-2})
    arguments = dict(optimizer_cls_and_kwargs=kind, lr_scheduler_type="constant")
    assert losses(tmp_path / "class", **arguments) == pytest.approx(expected, rel=1e-5)


def test_model_init_gives_every_run_the_model_before(tmp_path):
    arguments = dict(model=None, forget_loss="npo", retain_loss="kl", max_steps=3)
    trainer = build(tmp_path, model_init=lambda: tiny_model(), **arguments)
    trainer.train()
    first, after = logged(trainer, "loss"), weights(trainer.model)
    trainer.train()
    assert logged(trainer, "loss") == pytest.approx(first, rel=1e-5)
    assert torch.allclose(weights(trainer.model), after)
    given = build(tmp_path / "given", model=tiny_model(), **{k: v for k, v in arguments.items() if k != "model"})
    given.train()
    assert logged(given, "loss") == pytest.approx(first, rel=1e-5)
    assert not torch.allclose(weights(tiny_model()), after)


def test_trials_of_a_search(tmp_path, monkeypatch):
    def model_init(trial):
        models.append(trial)
        return tiny_model(seed=0 if trial is None else trial.number)

    models: list = []
    trainer = build(tmp_path, model_init=model_init, forget_loss="npo", retain_loss="kl", max_steps=3)
    # What Trainer.hyperparameter_search does with each trial, without the library that would propose it.
    trainer.hp_search_backend, trainer.hp_space = HPSearchBackend.OPTUNA, lambda trial: trial.params
    monkeypatch.setattr("transformers.integrations.hp_params", lambda trial: trial.params)
    trials = [SimpleNamespace(number=1, params={"learning_rate": 1e-2}), SimpleNamespace(number=2, params={})]
    first_nlls = []
    for trial in trials:
        trainer.train(trial=trial)
        # Each trial's reference is its own model: at the start NPO is (2 / beta) ln 2 and the KL is 0.
        assert logged(trainer, "forget/npo")[0] == pytest.approx(20 * 0.693147, rel=1e-4)
        assert logged(trainer, "retain/kl")[0] == pytest.approx(0.0, abs=1e-6)
        assert logged(trainer, "retain/kl")[1] > 1e-6
        first_nlls.append(logged(trainer, "forget_nll")[0])
    assert models == [None, *trials]
    assert first_nlls[0] != pytest.approx(first_nlls[1], rel=1e-3)


def test_a_second_run_goes_on_from_the_first(tmp_path):
    trainer = build(tmp_path, forget_loss="npo", retain_loss="kl")
    trainer.train()
    trainer.train()
    # The reference stays what it was before the first run.
    assert logged(trainer, "retain/kl")[0] > 1e-6
    assert abs(logged(trainer, "forget/npo")[0] - 20 * 0.693147) > 1e-3


def test_a_deleted_trainer_lets_go_of_its_model(tmp_path):
    trainer = build(tmp_path, forget_loss="npo", retain_loss="kl")
    trainer.train()
    model = weakref.ref(trainer.model)
    gc.disable()
    try:
        del trainer
        assert model() is None, "memory of a GPU would stay taken until the next garbage collection"
    finally:
        gc.enable()


def test_input_tokens_are_counted(tmp_path):
    trainer = build(tmp_path, include_num_input_tokens_seen="non_padding", max_steps=1)
    batch = next(iter(trainer.get_train_dataloader()))
    trainer.train()
    assert trainer.state.num_input_tokens_seen == int(batch["attention_mask"].sum())
    trainer = build(tmp_path, include_num_input_tokens_seen="all", max_steps=1)
    trainer.train()
    assert trainer.state.num_input_tokens_seen == batch["input_ids"].numel()


def test_neftune_disturbs_the_model_and_not_the_reference(tmp_path):
    trainer = build(tmp_path, neftune_noise_alpha=50.0, forget_loss="npo", retain_loss="kl", max_steps=1)
    trainer.train()
    assert logged(trainer, "retain/kl")[0] > 1e-3, "without noise it is 0 here"
    quiet = build(tmp_path, max_steps=1)
    quiet.train()
    assert logged(trainer, "retain_nll")[0] != pytest.approx(logged(quiet, "retain_nll")[0], rel=1e-4)


@pytest.mark.parametrize("loss", ["npo", "grad_ascent"])
def test_bf16(tmp_path, loss):
    exact = losses(tmp_path / "exact", forget_loss=loss, retain_loss="kl")
    mixed = losses(tmp_path, forget_loss=loss, retain_loss="kl", bf16=True)
    assert mixed == pytest.approx(exact, abs=0.05) and mixed != exact


def test_fp16_on_a_cpu_is_refused(tmp_path):
    # Neither Trainer nor accelerate refuses it: they would train in fp32.
    with pytest.raises(ValueError, match="fp16=True on a GPU"):
        build(tmp_path, fp16=True)


def test_activation_checkpointing(tmp_path):
    plain = losses(tmp_path / "plain")
    assert losses(tmp_path, activation_checkpointing=True) == pytest.approx(plain, rel=1e-5)


def test_an_adapter_is_saved_and_loaded(tmp_path):
    base = tmp_path / "base"
    tiny_model().save_pretrained(base)
    tiny_tokenizer().save_pretrained(base)
    trainer = build(tmp_path / "out", model=str(base), peft_config=LoraConfig(**LORA), forget_loss="npo", max_steps=3)
    trainer.train()
    trainer.save_model()
    saved = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json"} <= saved
    assert not any(name.startswith("model") for name in saved), "the base is not saved again"
    loaded = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "out")
    examples = sets()["forget"]
    assert naive_nll(loaded, examples) == pytest.approx(trainer.evaluate(examples)["eval_nll"], rel=1e-5)
    assert naive_nll(loaded, examples) != pytest.approx(naive_nll(tiny_model(), examples), rel=1e-4)


def test_save_only_model(tmp_path):
    trainer = build(tmp_path, save_strategy="steps", save_steps=2, save_only_model=True)
    trainer.train()
    saved = {path.name for path in (tmp_path / "checkpoint-2").iterdir()}
    assert "model.safetensors" in saved and "optimizer.pt" not in saved


def test_a_model_card_without_a_row(tmp_path):
    trainer = build(tmp_path, eval_dataset=sets(), eval_strategy="epoch", hub_model_id="org/name")
    trainer.train()
    trainer.create_model_card(dataset="org/rows", language="en")
    card, record = (tmp_path / "README.md").read_text(), (tmp_path / "results.json").read_text()
    assert "org/rows" in card and '"org/rows"' in record
    for text in (card, record):
        assert CANARY not in text and rows("forget", 1)[0]["prompt"] not in text


def test_a_card_names_no_dataset_that_the_hub_cannot_have(tmp_path):
    trainer = build(tmp_path)
    with pytest.raises(ValueError, match=r"ids of the Hub \(owner/name\).*\nGot: 'forget and retain'"):
        trainer.create_model_card(dataset="forget and retain")


def test_a_push_uploads_the_folder_and_no_row(tmp_path, hub):
    trainer = build(tmp_path, hub_model_id="tester/name", push_to_hub=True)
    trainer.train()
    trainer.push_to_hub(blocking=True)
    pushed = hub.files("tester/name")
    assert {"model.safetensors", "config.json", "tokenizer.json", "results.json", "README.md"} <= pushed.keys()
    for name, data in pushed.items():
        assert name == ".gitattributes" or data == (tmp_path / name).read_bytes() or name == "README.md"
    assert hub.private("tester/name")  # whose the rows are, nobody has said
    assert "tester/name" in pushed["README.md"].decode()
    arrived = hub.stored_bytes()
    assert pushed["results.json"] in arrived and CANARY.encode() not in arrived
    written = [path.read_bytes() for path in tmp_path.glob("*") if path.is_file()]
    assert written and not any(CANARY.encode() in text for text in written)


def test_logs_of_a_run_are_plain_numbers(tmp_path):
    trainer = build(tmp_path, eval_dataset=sets(), eval_strategy="epoch", report_to="none")
    trainer.train()
    history = json.loads(json.dumps(trainer.state.log_history))
    assert history == trainer.state.log_history
    assert {"forget/grad_ascent", "retain/nll", "forget_nll", "retain_nll", "bound_share"} <= history[0].keys()


def test_max_steps_and_epochs(tmp_path):
    assert len(losses(tmp_path / "steps", max_steps=5)) == 5
    assert len(losses(tmp_path / "epochs", max_steps=-1, num_train_epochs=2)) == 4


@pytest.mark.slow
@pytest.mark.parametrize("adapter", [False, True], ids=["full", "lora"])
def test_torch_compile(tmp_path, adapter):
    # Every block is traced, and again without gradients and where lengths change.
    arguments = dict(forget_loss="npo", retain_loss="kl", max_steps=2 if adapter else 4)
    if adapter:
        arguments["peft_config"] = LoraConfig(**LORA)
    plain = losses(tmp_path / "plain", model=one_block(), **arguments)
    compiled = losses(tmp_path, model=one_block(), torch_compile=True, torch_compile_backend="eager", **arguments)
    assert compiled == pytest.approx(plain, rel=1e-4) and len(plain) == arguments["max_steps"]


def one_block() -> LlamaForCausalLM:
    """The tiny model with half of its depth."""
    config = tiny_model().config
    config.num_hidden_layers = 1
    torch.manual_seed(0)
    return LlamaForCausalLM(config)
