"""Fine-tuning against a loop of plain transformers: order, schedule, what is trained, and where it ends."""

import copy

import pytest
import torch

from fixtures.models import tiny_model
from fixtures.planted import planted_rows
from fixtures.tokenizer import PAD
from hf_unlearn.data.collator import DataCollatorForUnlearning
from hf_unlearn.model.fine_tuning import fine_tune, whole_text
from oracles.fine_tuning import naive_fine_tune

STEPS, BATCH, RATE = 6, 5, 1e-3


def trained(rows, **settings):
    model = tiny_model().eval()
    given = {"steps": STEPS, "batch": BATCH, "rate": RATE} | settings
    assert list(fine_tune(model, rows, DataCollatorForUnlearning(PAD), **given)) == list(range(1, STEPS + 1))
    return model


def distance(one, other):
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return max(float((a - b).abs().max()) for a, b in pairs)


def test_equals_a_naive_loop():
    rows = planted_rows()["forget"][:12]  # 12 rows in batches of 5: batches go over the end of a pass
    whole = trained(whole_text(rows), schedule="cosine", warmup=2, shuffle=False)
    expected = naive_fine_tune(
        tiny_model(), rows, steps=STEPS, batch=BATCH, rate=RATE, seed=None, warmup=2, whole_text=True
    )
    assert distance(whole, expected) < 1e-5
    drawn = trained(rows, seed=3)
    assert distance(drawn, naive_fine_tune(tiny_model(), rows, steps=STEPS, batch=BATCH, rate=RATE, seed=3)) < 1e-5
    # Each of the settings matters.
    for changed in ({"schedule": "cosine"}, {"seed": 4}, {"shuffle": False}):
        assert distance(trained(rows, **({"seed": 3} | changed)), drawn) > 1e-4
    assert distance(trained(whole_text(rows), seed=3), drawn) > 1e-4


def test_ends_before_a_step_whose_loss_is_not_finite():
    model, rows = tiny_model().eval(), planted_rows()["forget"]
    before = copy.deepcopy(model)

    def loss(model, head, batch):
        return torch.tensor(float("nan"), requires_grad=True)

    assert list(fine_tune(model, rows, DataCollatorForUnlearning(PAD), steps=2, loss=loss)) == []
    assert distance(model, before) == 0


def test_an_unknown_schedule_is_an_error():
    with pytest.raises(ValueError, match="sometimes"):
        trained(planted_rows()["forget"], schedule="sometimes")
