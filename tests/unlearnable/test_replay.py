"""A replay without rows is, bit for bit, a training in which their places were empty from the start."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import TrainerCallback

from fixtures.logged import ROWS, logged, make, naive, rows_of, same, tokenized, weights
from fixtures.models import tiny_model
from hf_unlearn.unlearnable import UnlearnableCallback, read_log, replay


@pytest.mark.parametrize("kind", ["plain", "sft", "dpo"])
def test_from_a_checkpoint_from_the_start_and_by_a_naive_loop(tmp_path, kind):
    """Two epochs with dropout and accumulation; in step 3 a micro-batch loses its rows, in the second epoch others."""
    original = weights(logged(kind, tmp_path))
    log = read_log(tmp_path / "log")
    gone = log.steps[2].rows["train"][0][0]
    rows = [rows_of(kind)[row] for row in gone]
    assert len(gone) == 2 and log.checkpoint_before(log.first_step(rows)) == tmp_path / "out" / "checkpoint-2"

    def replayed(name, without, **options):
        return weights(replay(make(kind, tmp_path / name), tmp_path / "log", without, rows=rows_of(kind), **options))

    from_checkpoint = replayed("a", rows)
    assert same(from_checkpoint, replayed("b", rows, from_start=True))
    assert same(from_checkpoint, naive(make(kind, tmp_path / "c"), log, set(gone)))
    assert not same(from_checkpoint, original)  # the failing direction: with the rows left in
    assert not same(from_checkpoint, replayed("d", rows[:1]))
    assert same(original, replayed("e", []))


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A logged training of plain Trainer: its folder, and its weights."""
    folder = tmp_path_factory.mktemp("plain")
    return folder, weights(logged("plain", folder))


@pytest.mark.parametrize("which", ["first batch", "whole step", "two steps"])
def test_rows_of_the_first_batch_and_all_rows_of_a_step(plain, tmp_path, which):
    folder, original = plain
    log = read_log(folder / "log")
    steps = [step.rows["train"][0] for step in log.steps]
    gone = {
        "first batch": steps[0][0][:1],
        "whole step": [row for batch in steps[2] for row in batch],
        "two steps": [row for step in steps[1:3] for batch in step for row in batch],
    }[which]
    before = log.checkpoint_before(log.first_step([rows_of("plain")[row] for row in gone]))
    assert (None if before is None else before.name) == (None if which != "whole step" else "checkpoint-2")
    trainer = make("plain", tmp_path, [UnlearnableCallback(folder / "log", rows_of("plain"))])
    replayed = weights(replay(trainer, folder / "log", [ROWS[row] for row in gone]))
    assert same(replayed, naive(make("plain", tmp_path), log, set(gone))) and not same(replayed, original)
    assert read_log(folder / "log") == log and trainer.state.global_step == 6


def test_batches_of_one_row(tmp_path):
    changed = dict(per_device_train_batch_size=1, gradient_accumulation_steps=1, max_steps=5)
    original = weights(logged("plain", tmp_path, **changed))
    log = read_log(tmp_path / "log")
    (gone,) = log.steps[3].rows["train"][0][0]
    digests = log.digests([rows_of("plain")[gone]])
    assert log.steps_of(digests) == [4]
    one = weights(replay(make("plain", tmp_path / "a", **changed), tmp_path / "log", digests, rows=rows_of("plain")))
    assert same(one, naive(make("plain", tmp_path / "b", **changed), log, {gone})) and not same(one, original)


class Noise(TrainerCallback):
    """Draws random numbers when training begins, as a logger might."""

    def on_train_begin(self, args, state, control, **kwargs):
        torch.rand(3)


def test_an_adapter_begins_where_it_began_and_its_base_must_be_the_same(tmp_path):
    def adapted(seed, model=None, alpha=8):
        torch.manual_seed(seed)
        config = LoraConfig(r=4, lora_alpha=alpha, target_modules=["q_proj", "v_proj"], lora_dropout=0.2)
        return get_peft_model(model or tiny_model("opt", dropout=0.1), config)

    original = logged("plain", tmp_path, model=adapted(1))
    (kept,) = (tmp_path / "log" / "start").glob("*.safetensors")
    assert kept.stat().st_size < 20_000  # the adapter alone
    again = make("plain", tmp_path / "a", [Noise()], model=adapted(2))
    replay(again, tmp_path / "log", rows=rows_of("plain"))
    assert same(weights(original), weights(again))
    scaled = adapted(1, alpha=16)
    with pytest.raises(ValueError, match=r"adapter\.default\.lora_alpha 8 then, 16 now"):
        replay(make("plain", tmp_path / "b", model=scaled), tmp_path / "log", rows=rows_of("plain"))
    other = make("plain", tmp_path / "b", model=adapted(1, tiny_model("opt", seed=5, dropout=0.1)))
    with pytest.raises(ValueError, match="other frozen weights"):
        replay(other, tmp_path / "log", rows_of("plain")[:1], rows=rows_of("plain"))


def test_what_is_not_the_logged_training_is_refused(plain, tmp_path):
    folder, _ = plain
    rows, log = rows_of("plain"), folder / "log"

    def refused(match, without=rows[:1], rows=rows, set_=None, **changed):
        trainer = make("plain", tmp_path, **changed)
        trainer.train_dataset = trainer.train_dataset if set_ is None else set_
        with pytest.raises(ValueError, match=match):
            replay(trainer, log, without, rows=rows)

    refused("seed 3 then, 4 now", seed=4)
    refused("learning_rate 0.01 then.*micro_batches 6 then, 11 now", learning_rate=0.1, per_device_train_batch_size=1)
    refused(
        "(?s)the 11 rows of the train set.*Got: 11, the first that differs at place 1", rows=[rows[0], *rows[:0:-1]]
    )
    refused("rows= with the 11 rows", rows=rows[:5])
    refused("config.dropout 0.2 then, 0.1 now", model=tiny_model("opt", dropout=0.1))
    shortened = tokenized().map(lambda row: {"input_ids": row["input_ids"][:-1], "labels": row["labels"][:-1]})
    refused("the same rows with other tokens", set_=shortened)
    refused("1 that it never had", without=[{"prompt": "", "completion": "unknown"}])
    refused("an output_dir of its own", output_dir=str(folder / "out"), save_strategy="steps")
    trained = make("plain", tmp_path, max_steps=1)
    trained.train()
    with pytest.raises(ValueError, match="one that was trained"):
        replay(trained, log, rows[:1])
    drawn = make("plain", tmp_path)
    torch.manual_seed(9)  # the order of the rows is drawn from it
    with pytest.raises(ValueError, match="the rows that step 1 had then"):
        replay(drawn, log, [], rows=rows)


def test_a_start_by_hash_alone_and_a_changed_checkpoint(tmp_path):
    logged("plain", tmp_path, options={"keep_start": "hash"}, num_train_epochs=1)
    log, rows = read_log(tmp_path / "log"), rows_of("plain")
    assert log.start_weights is None
    late = [rows[log.steps[2].rows["train"][0][0][0]]]
    other = make("plain", tmp_path / "a", model=tiny_model("opt", seed=4, dropout=0.2), num_train_epochs=1)
    with pytest.raises(ValueError, match="only the hash"):
        replay(other, log.folder, late, rows=rows, from_start=True)
    (file,) = (tmp_path / "out" / "checkpoint-2").glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-1] + b"\x01")
    with pytest.raises(ValueError, match="checkpoint-2 with the weights that it was saved with"):
        replay(make("plain", tmp_path / "b", num_train_epochs=1), log.folder, late, rows=rows)


@pytest.mark.parametrize("kind", ["plain", "sft", "dpo"])
def test_a_set_of_tokens_is_known_by_tokens_alone(tmp_path, kind):
    trainer = make(kind, tmp_path / "out", [UnlearnableCallback(tmp_path / "log")], max_steps=1)
    if kind == "dpo":  # prompt_ids, chosen_ids, rejected_ids
        with pytest.raises(ValueError, match="pass rows="):
            trainer.train()
        return
    trainer.train()
    log = read_log(tmp_path / "log")
    first = log.steps[0].rows["train"][0][0][0]
    assert log.steps_of([trainer.get_train_dataloader().dataset[first]]) == [1]
    with pytest.raises(ValueError, match="as they were logged: tokens"):
        log.steps_of([ROWS[first]])
