"""Pruning, merging with a sibling, and removing the adapter: each against what its formula says, and what it finds."""

import copy

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model

from fixtures.models import tiny_model
from fixtures.planted import attacked_rows, planted_model, planted_oracle, planted_target
from fixtures.suppressed import adapted_model
from hf_unlearn.attacks import MergeSibling, Prune, RemoveAdapter
from hf_unlearn.model.linear_layers import linear_layers
from hf_unlearn.model.merging import merge


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_the_smallest_weights_are_pruned(scope):
    model, rows = planted_model(), attacked_rows()
    leaks = list(Prune((0.1, 0.5), (scope,)).run(planted_target(model), rows))
    assert [leak.setting for leak in leaks[1:]] == [{"scope": scope, "share": 0.1}, {"scope": scope, "share": 0.5}]
    naive = copy.deepcopy(model)
    layers = [layer.weight.data for layer in linear_layers(naive).values()]
    for group in [layers] if scope == "global" else [[layer] for layer in layers]:
        sizes = torch.cat([weight.abs().flatten() for weight in group]).sort().values
        for weight in group:
            weight *= weight.abs() > sizes[len(sizes) // 2 - 1]
    zeros = sum(int((weight == 0).sum()) for weight in layers)
    assert zeros == sum(weight.numel() for weight in layers) // 2
    assert np.array_equal(leaks[2].rows, planted_target(naive).probabilities(rows.rows))
    assert leaks[1].rows.mean() > 0.9  # the model knows the codes, and still does without a tenth of its weights


def test_a_sibling_that_knows_the_rows_gives_them_back_and_another_does_not(tmp_path):
    planted_model().save_pretrained(tmp_path / "knows")
    planted_oracle().save_pretrained(tmp_path / "never")
    hidden, oracle, rows = planted_target(adapted_model()), planted_target(planted_oracle()), attacked_rows()
    back = [leak.rows.mean() for leak in MergeSibling(str(tmp_path / "knows")).run(hidden, rows)]
    assert back == sorted(back)
    assert back[0] < 0.35
    assert back[-1] > 0.6
    never = MergeSibling(str(tmp_path / "never"), [0.5, 1])
    assert max(leak.rows.mean() for leak in never.run(oracle, rows)) < 0.03
    leaks = list(never.run(hidden, rows))
    assert [leak.setting["share"] for leak in leaks] == [0.0, 0.5, 1]
    np.testing.assert_allclose(leaks[2].rows, oracle.probabilities(rows.rows), rtol=1e-4)  # all of the sibling
    half = merge(adapted_model())
    with torch.no_grad():
        for weight, other in zip(half.parameters(), planted_oracle().parameters(), strict=True):
            weight.copy_((weight + other) / 2)
    np.testing.assert_allclose(leaks[1].rows, planted_target(half).probabilities(rows.rows), rtol=1e-4)


def test_an_adapter_is_a_sibling_with_its_base(tmp_path):
    tiny_model("opt").save_pretrained(tmp_path / "base")
    config = LoraConfig(target_modules=["q_proj", "fc1"], init_lora_weights=False, task_type="CAUSAL_LM")
    base = type(tiny_model("opt")).from_pretrained(tmp_path / "base")
    adapted = get_peft_model(base, config)
    adapted.save_pretrained(tmp_path / "adapter")
    target, rows = planted_target(tiny_model("opt", seed=1)), attacked_rows()
    attack = MergeSibling(str(tmp_path / "adapter"), (1.0,))
    assert attack.unfit(target, rows) is None
    *_, whole = attack.run(target, rows)
    np.testing.assert_allclose(whole.rows, planted_target(adapted).probabilities(rows.rows), rtol=1e-4)


def test_merging_needs_a_sibling_of_the_same_layers(tmp_path):
    target, rows = planted_target(tiny_model()), attacked_rows()
    assert MergeSibling().unfit(target, rows) == "no sibling was named (sibling=)"
    for name, other in (("opt", tiny_model("opt")), ("larger", tiny_model(vocabulary=300)), ("same", tiny_model())):
        other.save_pretrained(tmp_path / name)
    for name, reason in (("opt", "other weights"), ("larger", "other weights"), ("same", None)):
        said = MergeSibling(str(tmp_path / name)).unfit(target, rows)
        assert said is None if reason is None else reason in said
    (tmp_path / "same" / "config.json").write_text("{")
    with pytest.raises((OSError, ValueError), match="same"):
        MergeSibling(str(tmp_path / "same")).unfit(target, rows)


def test_the_base_model_is_left_when_the_adapter_is_removed():
    target, rows = planted_target(adapted_model()), attacked_rows()
    on, off = RemoveAdapter().run(target, rows)
    assert (on.setting, off.setting) == ({"adapter": "on"}, {"adapter": "off"})
    base = planted_target(planted_model())
    assert np.array_equal(off.rows, base.probabilities(rows.rows))
    assert off.utility == base.utility()
    assert on.rows.mean() < 0.35 < 0.9 < off.rows.mean()
    assert "no adapter" in RemoveAdapter().unfit(planted_target(planted_oracle()), rows)
    merged = adapted_model()
    merged.merge_adapter()
    weights = copy.deepcopy(merged.state_dict())
    target = planted_target(merged)
    *_, off = RemoveAdapter().run(target, rows)
    np.testing.assert_allclose(off.rows, base.probabilities(rows.rows), rtol=1e-3)
    assert all(torch.equal(weight, weights[name]) for name, weight in target.model.state_dict().items())
