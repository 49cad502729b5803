"""Levels that are estimated again in a run: against a naive mean, on rows that no anchor holds, and resumed."""

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from transformers import TrainerCallback

from fixtures.examples import assert_user_error
from fixtures.models import make_trainer, step_logs, tiny_model, train_sets
from hf_unlearn.data.holdout_split import anchored_places
from oracles import naive

UNSEEN = [{"prompt": f"where is dog {i}?", "completion": f" room {i * i}" + " w" * (i % 5)} for i in range(60)]
SETS = train_sets() | {"holdout": datasets.Dataset.from_list(UNSEEN)}
MOVING: dict[str, Any] = dict(
    forget_loss="unseen_level",
    forget_nll_bound=None,
    levels="holdout",
    anchor_loss="kl",
    anchor_ratio=0.5,
    recalibrate_steps=2,
    max_steps=6,
)


def trainer_of(folder: Path, **arguments: Any) -> Any:
    return make_trainer(folder, tiny_model(), sets=SETS, **MOVING | arguments)


def unseen_mean(trainer: Any) -> float:
    """Mean over rows of the NLL that the model gives to unseen rows which no anchor holds."""
    rows = trainer.train_sets.holdout.select(anchored_places(trainer.train_sets.holdout)[1])
    return float(np.mean([-naive.token_logps(trainer.model, row).detach().mean() for row in rows]))


class Seen(TrainerCallback):
    """After each step, what the naive loop makes of the model as it is."""

    def __init__(self) -> None:
        self.means: list[float] = []
        self.trainer: Any = None

    def on_step_end(self, args, state, control, **kwargs):
        self.means.append(unseen_mean(self.trainer))


def test_the_losses_are_told_of_the_unseen_rows_under_the_model_as_it_is(tmp_path):
    seen = Seen()
    trainer = seen.trainer = trainer_of(tmp_path, callbacks=[seen])
    before = unseen_mean(trainer)
    trainer.train()
    told = [entry.get("level_mean") for entry in step_logs(trainer)]
    # A step is logged after the levels were estimated; those of step 2 hold until step 4, after the last none are.
    first = float(trainer.baseline.levels.rows.mean())
    expected = [first + seen.means[step] - before for step in (1, 1, 3, 3, 3)]
    assert told[0] is None and told[1:] == pytest.approx(expected, rel=1e-5)
    assert len(set(told)) == 3 and told[1] != pytest.approx(first, rel=1e-4)
    assert (
        trainer.baseline.holdout_nll is not None and trainer.record.levels.mean == trainer.baseline.levels.quality.mean
    )


def test_a_bound_at_the_levels_moves_with_them(tmp_path):
    trainer = trainer_of(tmp_path, forget_loss="grad_ascent", forget_nll_bound="levels", levels="ngram")
    trainer.train()
    batch = next(iter(trainer.get_train_dataloader()))
    scores, _ = trainer._policy(trainer.model)(
        trainer.model, batch, trainer.reference.read(trainer.accelerator, trainer.model, batch)
    )
    supplied = trainer._steps.levels.supplied(scores, trainer.baseline, trainer._steps.context).forget
    assert torch.equal(supplied.bound, supplied.level)
    assert not torch.equal(supplied.level, trainer.baseline.levels.rows[supplied.row])


def test_the_anchor_holds_none_of_the_rows_that_levels_follow(tmp_path):
    trainer = trainer_of(tmp_path)
    holdout, anchors = trainer.train_sets.holdout, trainer.train_sets.anchors
    held, followed = anchored_places(holdout)
    assert sorted(held + followed) == list(range(len(holdout))) and min(len(held), len(followed)) > 5
    assert [row["input_ids"] for row in anchors] == [holdout[place]["input_ids"] for place in held]
    walked = {tuple(row["input_ids"]) for item in trainer.train_dataset for row in item["anchor"]}
    assert walked and walked.isdisjoint({tuple(holdout[place]["input_ids"]) for place in followed})
    whole = trainer_of(tmp_path, recalibrate_steps=None).train_sets
    assert whole.anchors is whole.holdout


def test_a_resumed_run_goes_on_with_the_levels_that_it_had(tmp_path):
    loss = {"name": "unseen_level", "token_weight": 0.1}  # levels of tokens move too
    saved = dict(forget_loss=loss, max_steps=7, recalibrate_steps=3, save_strategy="steps", save_steps=4)
    runs = []
    for checkpoint in (None, str(tmp_path / "out" / "checkpoint-4")):
        trainer = trainer_of(tmp_path, **saved)
        trainer.train(resume_from_checkpoint=checkpoint)
        runs.append((trainer.model.state_dict(), [entry.get("level_mean") for entry in step_logs(trainer)]))
    (weights, levels), (others, resumed) = runs
    assert levels == resumed and len(set(levels)) == 3
    assert all(torch.equal(weight, others[name]) for name, weight in weights.items())


def test_too_few_rows_for_both_are_refused(tmp_path):
    halves = anchored_places(trainer_of(tmp_path).train_sets.holdout)
    rows = trainer_of(tmp_path, recalibrate_steps=None).train_sets.holdout
    few = rows.select(halves[0][:6]).remove_columns([name for name in rows.column_names if name == "row"])
    sets = SETS | {"holdout": few}
    with pytest.raises(ValueError) as caught:
        make_trainer(tmp_path, tiny_model(), sets=sets, **MOVING)
    assert_user_error(str(caught.value), "holdout rows enough for an anchor and for levels that follow the model")


@pytest.mark.parametrize(
    "arguments",
    [dict(anchor_loss="none", anchor_ratio=0.25), dict(levels=dict.fromkeys(range(12), 3.0))],
    ids=["no anchor", "levels that are given"],
)
def test_levels_that_nothing_would_move_or_hold_are_refused(tmp_path, arguments):
    with pytest.raises(ValueError) as caught:
        trainer_of(tmp_path, **arguments)
    assert_user_error(str(caught.value), "estimated levels and an anchor, for recalibrate_steps")
