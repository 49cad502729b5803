"""The log names the rows that were in each batch, whatever samples, loads, kills or resumes the training."""

import os
import signal

import datasets
import pytest
import torch
from torch.utils.data import IterableDataset
from transformers import TrainerCallback

from fixtures.logged import ROWS, logged, make, rows_of, same, tokenized, weights
from fixtures.models import make_trainer, tiny_model, train_sets
from hf_unlearn import UnlearnableCallback
from hf_unlearn.data.text_digests import text_digests
from hf_unlearn.model.fingerprints import hash_weights
from hf_unlearn.model.weight_files import weight_file_hashes
from hf_unlearn.unlearnable import read_log


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"accelerator_config": {"use_seedable_sampler": False}, "dataloader_drop_last": True},
        {
            "train_sampling_strategy": "group_by_length",
            "dataloader_num_workers": 1,
        },
        {"train_sampling_strategy": "batch_rebalance"},
        {"train_sampling_strategy": "sequential", "max_steps": 2},
    ],
    ids=["plain", "unseeded", "by length, a worker", "rebalanced", "sequential, cut short"],
)
def test_the_logged_rows_are_those_that_were_collated(tmp_path, changed):
    callback = UnlearnableCallback(tmp_path / "log", rows_of("plain"), keep_start="hash")
    trainer = make("plain", tmp_path / "out", [callback], **changed)
    seen = []
    compute = trainer.compute_loss
    trainer.compute_loss = lambda model, inputs, **options: (
        seen.append(inputs["input_ids"].tolist()) or compute(model, inputs, **options)
    )
    trainer.train()
    log, pad = read_log(tmp_path / "log"), trainer.processing_class.pad_token_id
    ids = tokenized()["input_ids"]
    batches = [batch for step in log.steps for batch in step.rows["train"][0]]
    assert len(batches) == len(seen) and log.total_steps == trainer.state.global_step
    for batch, trained in zip(batches, seen, strict=True):
        assert [ids[row] for row in batch] == [[token for token in row if token != pad] for row in trained]
    assert [step.epoch for step in log.steps] == [(step.number - 1) // 3 for step in log.steps] or len(batches) % 3


def test_unlearning_trainer_logs_both_roles(tmp_path):
    sets = train_sets()
    seen = []
    trainer = make_trainer(
        tmp_path,
        tiny_model(),
        sets={name: sets[name] for name in ("forget", "retain")},
        callbacks=[UnlearnableCallback(tmp_path / "log", {name: sets[name] for name in ("forget", "retain")})],
        max_steps=4,
        gradient_accumulation_steps=2,
        per_device_train_batch_size=2,
        retain_ratio=2,
    )
    step = trainer.training_step
    trainer.training_step = lambda model, inputs, *rest: seen.append(inputs) or step(model, inputs, *rest)
    trainer.train()
    log = read_log(tmp_path / "log")
    own = [(own.rows["forget"][0][at], own.rows["retain"][0][at]) for own in log.steps for at in range(2)]
    assert [(len(forget), len(retain)) for forget, retain in own] == [(2, 4)] * 8
    walked = [row for _, retain in own for row in retain]
    assert len(set(walked[:30])) == 30 and sorted({row for forget, _ in own[:6] for row in forget}) == [*range(12)]
    assert [[*forget, *retain] for forget, retain in own] == [inputs["row"].tolist() for inputs in seen]
    assert log.steps_of([sets["retain"][walked[0]]])[0] == 1 and log.rows_logged == 42


class Die(TrainerCallback):
    """Ends the process, or the training, in the middle of step 4."""

    def __init__(self, kill):
        self.kill = kill

    def on_substep_end(self, args, state, control, **kwargs):
        if state.global_step == 3:
            if self.kill:
                os.kill(os.getpid(), signal.SIGKILL)
            raise KeyboardInterrupt


@pytest.mark.parametrize("last", ["checkpoint-2", None])
def test_a_killed_training_goes_on_in_its_log(tmp_path, last):
    whole = logged("plain", tmp_path / "whole")

    def trainer(*others):
        callback = UnlearnableCallback(tmp_path / "log", rows_of("plain"), checkpoints=2)
        return make("plain", tmp_path / "out", [callback, *others])

    process = os.fork()
    if process == 0:
        trainer(Die(kill=True)).train()
    assert os.WTERMSIG(os.waitpid(process, 0)[1]) == signal.SIGKILL
    assert read_log(tmp_path / "log").total_steps == 3
    with open(tmp_path / "log" / "steps-0.jsonl", "ab") as torn:
        torn.write(b'{"event":"st')
    resumed = trainer()
    resumed.train(resume_from_checkpoint=last and str(tmp_path / "out" / last))
    log = read_log(tmp_path / "log")
    expected = read_log(tmp_path / "whole" / "log")
    assert log.steps == expected.steps and log.finished and [*log.saved] == [2, 4, 6]
    assert log.checkpoint_steps == [0, 2, 4, 6] and log.weights == weight_file_hashes(
        tmp_path / "out" / "checkpoint-6"
    )
    assert (log.start, log.end) == (expected.start, hash_weights(whole.model)) and log.end == expected.end
    assert same(weights(resumed), weights(whole))
    lines = (tmp_path / "log" / "steps-0.jsonl").read_text().splitlines()
    assert sum('"step"' in line and '"rows"' in line for line in lines) > 6  # what was trained again is there as well


def test_another_training_in_the_folder_is_refused(tmp_path):
    logged("plain", tmp_path, num_train_epochs=1)

    def refused(match, model=None, rows=None, checkpoint=None, folder=tmp_path / "log", **changed):
        callback = UnlearnableCallback(folder, rows_of("plain") if rows is None else rows)
        trainer = make("plain", tmp_path / "out", [callback], model, **{"num_train_epochs": 1, **changed})
        with pytest.raises(ValueError, match=match):
            trainer.train(resume_from_checkpoint=checkpoint)

    refused("the weights with which the logged training began", tiny_model("opt", seed=8, dropout=0.2))
    refused("num_train_epochs 1 then, 2 now", num_train_epochs=2)
    refused("the 11 rows of the train set", rows=[*rows_of("plain")[1:], {"text": "new"}])
    file = tmp_path / "log" / "steps-0.jsonl"
    file.write_bytes(file.read_bytes().replace(b'"format":1', b'"format":2'))
    refused("line 1 of steps-0")
    refused(
        "the log of the first 2 steps in new",
        checkpoint=str(tmp_path / "out" / "checkpoint-2"),
        folder=tmp_path / "new",
    )


class Stream(IterableDataset):
    def __iter__(self):
        yield from tokenized()


def test_rows_that_cannot_be_traced_are_refused(tmp_path):
    def refused(match, kind="plain", rows=None, train=None, **changed):
        trainer = make(kind, tmp_path / "out", [UnlearnableCallback(tmp_path / "log", rows)], max_steps=1, **changed)
        trainer.train_dataset = trainer.train_dataset if train is None else train
        with pytest.raises(ValueError, match=match):
            trainer.train()

    refused("an IterableDataset", train=Stream())
    refused("an IterableDataset", train=tokenized().to_iterable_dataset())
    refused("packing=True", kind="sft", packing=True, max_length=64)
    refused("shuffle_dataset=True", kind="sft", rows=rows_of("sft"), shuffle_dataset=True)
    refused("auto_find_batch_size", auto_find_batch_size=True)
    refused("rows= with the 11 rows", rows=rows_of("plain")[:-1])
    refused("rows for train", rows={"forget": ROWS})
    assert not (tmp_path / "log" / "steps-0.jsonl").exists()
    with pytest.raises(ValueError, match="keep_start"):
        UnlearnableCallback(tmp_path, keep_start="all")
    with pytest.raises(ValueError, match="checkpoints"):
        UnlearnableCallback(tmp_path, checkpoints=0)


class Peeks(TrainerCallback):
    """Reads a batch of the training's own loader in the middle of an epoch."""

    def on_step_end(self, args, state, control, train_dataloader=None, **kwargs):
        next(iter(train_dataloader))


def test_a_loader_that_something_else_reads_ends_the_training(tmp_path):
    trainer = make("plain", tmp_path / "out", [UnlearnableCallback(tmp_path / "log", rows_of("plain")), Peeks()])
    with pytest.raises(ValueError, match="that only the training reads"):
        trainer.train()
    assert read_log(tmp_path / "log").total_steps == 1


def test_padding_free_rows_keep_their_places(tmp_path):
    model = tiny_model()
    logged("sft", tmp_path, model=model, padding_free=True, max_length=None, max_steps=1)
    log = read_log(tmp_path / "log")
    assert [len(batch) for batch in log.steps[0].rows["train"][0]] == [2, 2]
    raw = datasets.Dataset.from_list(rows_of("sft"))
    assert log.digests(raw) == [*text_digests(rows_of("sft"), log.salt)] == [*log.sets["train"]]
    assert torch.load(tmp_path / "log" / "start" / "random_state_0.pt", weights_only=True)["cpu"].dtype == torch.uint8
