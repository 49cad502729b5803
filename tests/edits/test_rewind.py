"""Rewinding to a checkpoint: bit equality with the retain rows' own run, and what it needs."""

import copy

import pytest
import torch

from fixtures.edited import edited, planted_data, tuned, weights_equal
from fixtures.models import tiny_model
from fixtures.planted import planted_rows
from hf_unlearn.edits import EDITS, Rewind
from oracles.fine_tuning import naive_fine_tune

REPLAY = {"epochs": 2.0, "rate": 1e-3, "batch": 8, "schedule": "constant", "whole_text": False}
STEPS = {"steps": 6, "rate": 1e-3, "batch": 8}  # two passes over the 24 rows


def distance(one, other):
    return max(float((a - b).detach().abs().max()) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shuffle", [False, True])
def test_is_the_model_that_retain_rows_alone_make_of_the_checkpoint(dtype, shuffle):
    checkpoint, retain = tiny_model().eval().to(dtype), planted_rows()["retain"]
    learnt = tiny_model(seed=1).eval().to(dtype)  # what became of it has no part in the result
    report = edited(Rewind(**REPLAY, shuffle=shuffle), learnt, checkpoint=checkpoint, seed=3)
    wide = copy.deepcopy(checkpoint).float()
    expected = tuned(wide, retain, seed=3, shuffle=shuffle, **STEPS).to(dtype)
    assert report.model is learnt and weights_equal(learnt, expected)
    if dtype is torch.float32:
        naive = naive_fine_tune(checkpoint, retain, seed=3 if shuffle else None, **STEPS)
        assert distance(learnt, naive) < 1e-5
        # Another order is another model, and so are fewer passes.
        assert distance(learnt, naive_fine_tune(checkpoint, retain, seed=None if shuffle else 3, **STEPS)) > 1e-4
        assert distance(learnt, naive_fine_tune(checkpoint, retain, seed=3, **STEPS | {"steps": 3})) > 1e-4


def test_without_an_epoch_it_is_the_checkpoint():
    report = edited(Rewind(epochs=0.0), tiny_model(seed=1), checkpoint=tiny_model())
    assert weights_equal(report.model, tiny_model())
    assert [one.chosen for one in report.tried] == [False, True]


def test_a_checkpoint_that_knows_the_rows_is_told(caplog):
    for level, told in ((20.0, True), (6.0, False)):  # it gives them about 5.6 nats per token
        caplog.clear()
        edited(Rewind(epochs=0.0), tiny_model(), checkpoint=tiny_model(), level=level)
        assert ("from after they were learnt" in caplog.text) is told


def test_arguments_and_what_it_needs():
    assert EDITS["rewind"] is Rewind
    data = planted_data()
    with pytest.raises(ValueError, match="Expected checkpoint, for the edit rewind"):
        edited(Rewind(), tiny_model())
    with pytest.raises(ValueError, match=r"data\['retain'\], for the edit rewind"):
        edited(Rewind(), tiny_model(), {"forget": data["forget"]}, checkpoint=tiny_model())
    with pytest.raises(ValueError, match="a checkpoint with the weights of the model"):
        edited(Rewind(), tiny_model(), checkpoint=tiny_model("opt"))
    for wrong in ({"rate": 0.0}, {"epochs": -1.0}, {"schedule": "sometimes"}, {"batch": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Rewind(**wrong)
