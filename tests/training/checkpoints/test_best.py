"""The best checkpoint is kept and loaded as by Trainer, also where the folder has moved or was used before."""

import shutil
from pathlib import Path

import datasets
import pytest
import torch
from transformers import DataCollatorForSeq2Seq, Trainer, TrainerCallback

from fixtures.bad_input import build, config, rows, weights
from fixtures.models import tiny_model, tiny_tokenizer
from hf_unlearn import UnlearningTrainer

EVERY = dict(eval_strategy="steps", eval_steps=1, save_strategy="steps", save_steps=1, load_best_model_at_end=True)
ONE = datasets.Dataset.from_list(rows("other", 4))


class Kept(TrainerCallback):
    """What lies in the folder after each save, and which is called the best."""

    def __init__(self):
        self.seen = []

    def on_save(self, args, state, control, **kwargs):
        best = state.best_model_checkpoint
        self.seen.append((checkpoints(args.output_dir), best and Path(best).name))


def checkpoints(folder):
    return sorted(path.name for path in Path(folder).glob("checkpoint-*"))


def scored(base: type[Trainer], scores: list[int]) -> type[Trainer]:
    """A trainer whose evaluations give these scores, one a step."""

    class Scored(base):
        def evaluate(self, *args, **kwargs):
            metrics = {"eval_score": scores[self.state.global_step - 1]}
            self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
            return metrics

    return Scored


def make(folder, scores, base=UnlearningTrainer, **arguments):
    arguments = EVERY | dict(max_steps=len(scores), metric_for_best_model="score", greater_is_better=True) | arguments
    if base is UnlearningTrainer:
        return build(folder, trainer_class=scored(base, scores), eval_dataset=ONE, callbacks=[Kept()], **arguments)
    tokens = datasets.Dataset.from_list([{"input_ids": [5, 6, 7], "labels": [5, 6, 7]}] * 8)
    collator, kept = DataCollatorForSeq2Seq(tiny_tokenizer()), [Kept()]
    args = config(folder, **arguments)
    return scored(base, scores)(tiny_model(), args, collator, tokens, tokens, tiny_tokenizer(), callbacks=kept)


@pytest.mark.parametrize(
    "arguments",
    [dict(save_total_limit=1), dict(save_total_limit=1, save_strategy="best")],
    ids=["every step", "the best"],
)
def test_checkpoints_that_stay_are_trainers(tmp_path, arguments):
    ours, theirs = (
        make(tmp_path / base.__name__, [1, 3, 2, 4, 0], base, **arguments) for base in (UnlearningTrainer, Trainer)
    )
    for trainer in (ours, theirs):
        trainer.train()
    kept = [next(c for c in t.callback_handler.callbacks if isinstance(c, Kept)).seen for t in (ours, theirs)]
    assert kept[0] == kept[1] and max(len(names) for names, _ in kept[0]) <= 2
    assert checkpoints(tmp_path / "UnlearningTrainer") == checkpoints(tmp_path / "Trainer")
    assert kept[0][-1][1] == "checkpoint-4" and ours.state.best_metric == theirs.state.best_metric == 4


def test_the_best_of_a_moved_folder_is_loaded_and_an_earlier_runs_is_not(tmp_path):
    whole = make(tmp_path / "whole", [1, 5, 2, 3])
    whole.train()
    whole.end()  # unlocks the folder
    shutil.rmtree(tmp_path / "whole" / "checkpoint-4")
    shutil.move(tmp_path / "whole", tmp_path / "moved")
    resumed = make(tmp_path / "moved", [1, 5, 2, 3])
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.best_model_checkpoint == str(tmp_path / "moved" / "checkpoint-2")
    assert torch.equal(weights(resumed.model), weights(whole.model))
    resumed.end()
    # The best step of this run is not among those that it saves, but a checkpoint of the earlier run has its number.
    later = make(tmp_path / "moved", [1, 4, 9, 3], save_steps=2)
    later.train()
    assert later.state.best_global_step == 3 and "checkpoint-3" in checkpoints(tmp_path / "moved")
    assert later.state.best_model_checkpoint == str(tmp_path / "moved" / "checkpoint-2")
