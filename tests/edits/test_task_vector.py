"""Task vectors: the base comes back exactly, LoRA's is B A, the search for a scale, and what becomes of rows kept."""

import copy
import json

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from transformers import GPT2Config, GPT2LMHeadModel

from fixtures.edited import edited, learnt_later, planted_data, tuned, weights_equal
from fixtures.models import VOCABULARY, tiny_model
from fixtures.planted import planted_oracle, planted_rows
from fixtures.tokenizer import BOS, EOS, PAD
from hf_unlearn.edits import EDITS, TaskVector
from hf_unlearn.model.fingerprints import hash_weights
from hf_unlearn.model.merging import merge
from oracles.fine_tuning import naive_fine_tune

SHORT = {"epochs": 1.0, "rate": 1e-3, "batch": 8, "whole_text": False}  # three steps over the 24 rows
STEPS = {"steps": 3, "rate": 1e-3, "batch": 8}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_vector_of_a_known_fine_tuning_gives_back_the_base(dtype):
    base = tiny_model().eval().to(dtype)
    wide = copy.deepcopy(base).to(torch.promote_types(dtype, torch.float32))
    model = tuned(wide, planted_rows()["forget"], **STEPS).to(dtype)
    given, checkpoint = copy.deepcopy(model), hash_weights(base)
    report = edited(TaskVector(alpha=1.0, **SHORT), model, checkpoint=base)
    if dtype is torch.float32:  # the model is theta_f itself
        assert weights_equal(model, base)
    # theta - (theta_f - theta_0), rounded once; theta_f by a plain loop in fp64, where AdamW's signs are sure.
    trained = naive_fine_tune if dtype is torch.float64 else tuned
    tuned_again = trained(wide, planted_rows()["forget"], **STEPS)
    for weight, before, end, start in zip(*(x.parameters() for x in (model, given, tuned_again, wide)), strict=True):
        expected = before.double() - (end.double() - start.double())
        torch.testing.assert_close(weight, expected.to(dtype), atol=1e-6 if dtype is torch.float64 else 0, rtol=0)
    assert not weights_equal(model, given) and hash_weights(base) == checkpoint
    assert [one.chosen for one in report.tried] == [False, False, True]
    # Half of the way back is another model, and so is the way on.
    for alpha in (0.5, -1.0):
        assert not weights_equal(edited(TaskVector(alpha=alpha, **SHORT), given, checkpoint=base).model, base)


def test_without_a_checkpoint_the_vector_starts_at_the_model():
    model = tiny_model("opt").eval().double()  # tied embeddings
    start = copy.deepcopy(model)
    report = edited(TaskVector(alpha=2.0, **SHORT), model)
    naive = naive_fine_tune(start, planted_rows()["forget"], **STEPS)
    for (name, weight), before, end in zip(
        model.named_parameters(), start.parameters(), naive.parameters(), strict=True
    ):
        if "k_proj.bias" not in name:  # its gradient is 0 but for rounding, and AdamW takes the sign of that
            torch.testing.assert_close(weight, before - 2 * (end - before), atol=1e-6, rtol=0)
    moved = sum((a - b).double().square().sum() for a, b in zip(naive.parameters(), start.parameters(), strict=True))
    size = (moved / sum(b.double().square().sum() for b in start.parameters())).sqrt()
    assert report.tried[0].setting["vector_size"] == pytest.approx(size.item(), rel=1e-3)
    assert model.lm_head.weight is model.model.decoder.embed_tokens.weight
    assert report.after.forget > report.before.forget


def small_gpt2():
    sizes = {"n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 128}
    special = {"pad_token_id": PAD, "bos_token_id": BOS, "eos_token_id": EOS}
    return GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, **sizes, **special)).eval()


@pytest.mark.parametrize("make", [tiny_model, small_gpt2])
def test_with_a_rank_it_is_the_adapter_with_its_scaling_negated(make):
    torch.manual_seed(0)
    start = make()
    edit = TaskVector(alpha=1.5, rank=3, **SHORT | {"rate": 1e-2})
    report = edited(edit, copy.deepcopy(start), seed=5)
    # The same adapter with PEFT alone: same seed, same steps; then -alpha times its scaling, merged.
    torch.manual_seed(5)
    conv = make is small_gpt2
    config = LoraConfig(r=3, lora_alpha=6, target_modules="all-linear", fan_in_fan_out=conv, task_type="CAUSAL_LM")
    adapted = tuned(
        get_peft_model(copy.deepcopy(start), config).eval(), planted_rows()["forget"], seed=5, **STEPS | {"rate": 1e-2}
    )
    for layer in adapted.modules():
        if isinstance(layer, LoraLayer):
            layer.scaling["default"] *= -1.5
    expected = dict(merge(adapted).named_parameters())
    for name, weight in report.model.named_parameters():
        torch.testing.assert_close(weight, expected[name], atol=1e-6, rtol=0)
    moved = {kind.layers for kind in report.moved if kind.changed}
    assert moved and not moved & {"embed_tokens", "wte", "lm_head", "norm", "ln_f"}


def test_stops_at_the_level_and_a_checkpoint_keeps_more():
    later = {"epochs": 20.0, "rate": 1e-3, "whole_text": False}
    kept = {}
    for name, checkpoint in (("checkpoint", planted_oracle()), ("none", None)):
        report = edited(TaskVector(**later), learnt_later(), checkpoint=checkpoint)
        assert report.before.forget < 0.1 and abs(report.after.forget - report.level) < 0.1
        chosen = [one for one in report.tried if one.chosen]
        assert len(chosen) == 1 and chosen[0].forget_nll == pytest.approx(report.after.forget)
        kept[name] = report.after.retain
    assert kept["checkpoint"] < 0.4 and kept["none"] > 1


def test_the_search_stays_below_max_alpha_and_at_zero_where_all_is_forgotten():
    little = edited(TaskVector(max_alpha=1.5, rate=1e-6, epochs=1.0), learnt_later())
    assert [one.setting["alpha"] for one in little.tried[1:]] == [0.0, 1.0, 1.5]
    assert any(one.chosen for one in little.tried) and "nearer to where they were" in little.warnings[0]
    forgotten = edited(TaskVector(**SHORT), learnt_later(), level=0.001)
    assert forgotten.weights_before == forgotten.weights_after
    assert [one.setting.get("alpha") for one in forgotten.tried] == [None, 0.0]


def test_arguments_and_what_it_needs():
    assert EDITS["task_vector"] is TaskVector
    data = planted_data()
    with pytest.raises(ValueError, match=r"holdout rows, or level=NATS, for the edit task_vector"):
        edited(json.dumps({"name": "task_vector"}), tiny_model(), {"forget": data["forget"]})
    with pytest.raises(ValueError, match="a finite loss in every step"):
        edited(TaskVector(rate=1e30, epochs=4.0, alpha=1.0), tiny_model())
    with pytest.raises(ValueError, match=r"a checkpoint with the weights of the model.*\n.*embed_tokens"):
        edited(TaskVector(alpha=1.0), tiny_model(), checkpoint=tiny_model(vocabulary=VOCABULARY + 3))
    for wrong in ({"rate": 0.0}, {"max_alpha": 0.0}, {"epochs": 0.0}, {"rank": 0}, {"batch": 1.5}, {"alpha": "much"}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            TaskVector(**wrong)
