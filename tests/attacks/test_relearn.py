"""Relearning: what comes back, how fast, of which rows; steps against a loop of plain transformers; paths that end."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from fixtures.models import tiny_model
from fixtures.planted import attacked_rows, planted_model, planted_oracle, planted_rows, planted_target
from fixtures.suppressed import adapted_model
from hf_unlearn.attacks import Relearn

EVERY_SET = ("forget", "related", "unrelated")


def curve(attack, target, rows, name, adapter):
    """Mean leak at each measured step."""
    leaks = [leak for leak in attack.run(target, rows) if leak.setting["set"] == name]
    return [float(np.nanmean(leak.rows)) for leak in leaks if leak.setting["weights"] == adapter]


@pytest.mark.parametrize(("adapter", "back"), [("full", 0.85), ("lora", 0.7)])
def test_what_was_hidden_comes_back_and_what_was_never_known_does_not(adapter, back):
    attack = Relearn(rates=(1e-3,), steps=15, sets=("related",), adapters=(adapter,))
    hidden = curve(attack, planted_target(adapted_model()), attacked_rows(), "related", adapter)
    assert hidden[0] < 0.35
    assert max(hidden) > back
    oracle = planted_target(planted_oracle())
    for rows in (attacked_rows(), attacked_rows(control=True)):
        assert max(curve(attack, oracle, rows, "related", adapter)) < 0.03


def test_two_given_rows_bring_back_others_faster_than_a_model_that_never_knew_them_learns():
    attack = Relearn(rates=(3e-4,), steps=10, sets=("forget",), adapters=("full",))
    hidden, oracle = (
        curve(attack, planted_target(model), attacked_rows(), "forget", "full")
        for model in (adapted_model(), planted_oracle())
    )
    assert hidden[-1] - hidden[0] > 0.3
    assert oracle[-1] - oracle[0] < 0.01


def test_settings_in_their_order_and_the_rows_that_were_given():
    attack = Relearn(rates=(1e-4, 1e-5), steps=5, every=3, sets=EVERY_SET)
    rows = replace(attacked_rows(), unrelated=planted_rows()["unseen"][:1])
    leaks = list(attack.run(planted_target(tiny_model()), rows))
    assert [tuple(leak.setting.values()) for leak in leaks] == [
        (name, rate, weights, step)
        for name in EVERY_SET
        for weights in ("full", "lora")
        for rate in (1e-4, 1e-5)
        for step in (0, 3, 5)
    ]
    assert list(leaks[0].setting) == ["set", "rate", "weights", "step"]
    for leak in leaks:
        given = rows.given(0.1) if leak.setting["set"] == "forget" else []
        assert np.flatnonzero(np.isnan(leak.rows)).tolist() == given
        assert leak.utility is not None
    assert len(rows.given(0.1)) == 2
    assert rows.tuned[rows.given(0.1)].all()


def test_sets_without_rows_are_left_out():
    attack, target = Relearn(rates=(1e-4,), steps=1, adapters=("full",)), planted_target(tiny_model())
    rows = replace(attacked_rows(), related=())
    assert {leak.setting["set"] for leak in attack.run(target, rows)} == {"forget"}
    assert attack.unfit(target, rows) is None
    assert "(unrelated)" in Relearn(sets=("unrelated",)).unfit(target, rows)


@pytest.mark.parametrize("kind", ["llama", "opt"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_steps_are_those_of_a_plain_loop(kind, dtype):
    model = tiny_model(kind).to(dtype)
    target = planted_target(model, seed=3)
    rows = replace(attacked_rows(), related=planted_rows()["retain"][:5])
    attack = Relearn(rates=(1e-3,), steps=4, batch=3, every=2, sets=("related",), adapters=("full",))
    leaks = list(attack.run(target, rows))

    naive = tiny_model(kind).to(dtype).float().eval()
    optimizer = torch.optim.AdamW(naive.parameters(), lr=1e-3, weight_decay=0.0)
    generator = torch.Generator().manual_seed(3)
    order = [int(place) for _ in range(3) for place in torch.randperm(5, generator=generator)]
    for step in range(4):
        # One row at a time: no padding, and every answer token counts the same.
        losses, tokens = [], 0
        for place in order[3 * step : 3 * step + 3]:
            ids, labels = (torch.tensor([rows.related[place][name]]) for name in ("input_ids", "labels"))
            logps = naive(input_ids=ids).logits[0, :-1].log_softmax(-1)
            answer = labels[0, 1:] != -100
            losses.append(-logps[answer].gather(1, labels[0, 1:][answer, None]).sum())
            tokens += int(answer.sum())
        (sum(losses) / tokens).backward()
        optimizer.step()
        optimizer.zero_grad()
    np.testing.assert_allclose(leaks[-1].rows, target.probabilities(rows.rows, naive), rtol=1e-3)
    assert leaks[-1].setting["step"] == 4
    assert abs(leaks[-1].rows / leaks[0].rows - 1).max() > 0.1
    assert leaks[-1].utility == pytest.approx(target.utility(naive), rel=1e-3)


def test_a_path_that_destroys_the_model_ends():
    attack = Relearn(rates=(1.0, 1e-5), steps=20, every=2, sets=("related",), adapters=("full",))
    leaks = list(attack.run(planted_target(planted_model()), attacked_rows()))
    destroyed = [leak for leak in leaks if leak.setting["rate"] == 1.0]
    assert [leak.setting["step"] for leak in destroyed] == [0, 2]
    assert destroyed[-1].utility < 0.5 * destroyed[0].utility
    assert [leak.setting["step"] for leak in leaks if leak.setting["rate"] == 1e-5] == list(range(0, 21, 2))


def test_a_path_whose_numbers_are_not_finite_ends_without_them():
    attack = Relearn(rates=(1e30,), steps=20, every=1, sets=("related",), adapters=("full",))
    leaks = list(attack.run(planted_target(planted_model(), retain=()), attacked_rows()))
    assert 1 <= len(leaks) < 20
    assert all(np.isfinite(leak.rows).all() for leak in leaks)
    assert all(np.isnan(leak.utility) for leak in leaks)
