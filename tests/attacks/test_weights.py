"""What holds of every attack on weights: it begins with the model as it is, changes nothing of it, and repeats."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from peft import LoraConfig, PromptTuningConfig, get_peft_model

from fixtures.models import tiny_model
from fixtures.planted import attacked_rows, planted_model, planted_oracle, planted_target
from fixtures.suppressed import adapted_model
from hf_unlearn.attacks import MergeSibling, Prune, Quantize, Relearn, RemoveAdapter
from hf_unlearn.attacks.weights import magnitude_threshold
from hf_unlearn.model.linear_layers import by_output, linear_layers

RELEARN = Relearn(rates=(1e-3,), steps=4, every=2)


def tied_in_16_bits():
    """Learnt positions, tied embeddings, bf16."""
    return tiny_model("opt").bfloat16()


def adapted_in_16_bits():
    """A tied model in bf16 with an adapter on its head."""
    config = LoraConfig(target_modules=["q_proj", "lm_head"], init_lora_weights=False, task_type="CAUSAL_LM")
    return get_peft_model(tiny_model("opt").bfloat16(), config)


@pytest.fixture(scope="module")
def sibling(tmp_path_factory):
    """Folders of models, by the name of the class whose layers they have."""
    folder = tmp_path_factory.mktemp("siblings")
    for name, model in (("llama", planted_oracle()), ("opt", tiny_model("opt", seed=1))):
        model.save_pretrained(folder / name)
    return folder


@pytest.mark.parametrize("model", [adapted_model, planted_model, tied_in_16_bits, adapted_in_16_bits])
def test_every_attack_begins_with_the_model_as_it_is_and_leaves_it(model, sibling):
    target = planted_target(model())
    kind = target.model.config.model_type
    attacks = [RELEARN, Quantize(), Prune((0.3,)), MergeSibling(str(sibling / kind), (0.5,)), RemoveAdapter()]
    rows = attacked_rows()
    weights = copy.deepcopy(target.model.state_dict())
    trained = [weight.requires_grad for weight in target.model.parameters()]
    state = torch.get_rng_state()
    probabilities, utility = target.probabilities(rows.rows), target.utility()
    for attack in attacks:
        if attack.unfit(target, rows) is not None:
            assert isinstance(attack, RemoveAdapter)
            continue
        leaks, again = list(attack.run(target, rows)), list(attack.run(target, rows))
        given = np.isnan(leaks[0].rows)
        assert np.array_equal(leaks[0].rows[~given], probabilities[~given])
        assert given.sum() == (2 if attack is RELEARN else 0)
        assert leaks[0].utility == utility
        for leak, same in zip(leaks, again, strict=True):
            assert leak.setting == same.setting
            assert np.array_equal(leak.rows, same.rows, equal_nan=True)
            assert leak.utility == same.utility
            scored = leak.rows[~np.isnan(leak.rows)]
            assert len(scored) >= 22
            assert ((scored >= 0) & (scored <= 1)).all()
        assert any(not np.array_equal(leak.rows, leaks[0].rows, equal_nan=True) for leak in leaks[1:])
    assert torch.equal(torch.get_rng_state(), state)
    assert [weight.requires_grad for weight in target.model.parameters()] == trained
    after = target.model.state_dict()
    assert after.keys() == weights.keys()
    assert all(
        torch.equal(after[name], weight) and after[name].dtype == weight.dtype for name, weight in weights.items()
    )


@pytest.mark.parametrize("control", [False, True])
def test_nothing_comes_out_of_a_model_that_never_knew_the_rows(control, sibling):
    target, rows = planted_target(planted_oracle()), attacked_rows(control=control)
    attacks = [Quantize(), Prune(scopes=("global",)), MergeSibling(str(sibling / "llama"))]
    assert max(leak.rows.mean() for attack in attacks for leak in attack.run(target, rows)) < 0.03


def test_weights_that_cannot_be_changed_are_unfit(monkeypatch):
    prompts = PromptTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM")
    target, rows = planted_target(get_peft_model(tiny_model(), prompts)), attacked_rows()
    for attack in (RELEARN, Quantize(), Prune()):
        assert "prompt" in attack.unfit(target, rows)
    assert RemoveAdapter().unfit(target, rows) is None
    monkeypatch.setattr(target.model.base_model, "is_quantized", True, raising=False)
    for attack in (RELEARN, Quantize(), Prune()):
        assert "quantised already" in attack.unfit(target, rows)


def test_linear_layers_are_those_below_the_head():
    tied, mixture = linear_layers(tiny_model("opt")), linear_layers(tiny_model("mixtral"))
    assert {name.rsplit(".", 1)[-1] for name in tied} == {"q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"}
    assert len(tied) == 2 * 6
    assert not any("embed" in name or "head" in name for name in (*tied, *mixture))
    tied_head = tiny_model("llama")
    tied_head.lm_head.weight = tied_head.model.embed_tokens.weight
    assert len(linear_layers(tied_head)) == 2 * 7


def test_gpt2_has_its_layers_the_other_way_round():
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(vocab_size=261, n_positions=32, n_embd=32, n_layer=1, n_head=2))
    layers = linear_layers(model)
    assert by_output(layers["transformer.h.0.mlp.c_fc"]).shape == (128, 32)
    by_output(layers["transformer.h.0.mlp.c_fc"])[3] = 7.0
    assert (model.transformer.h[0].mlp.c_fc.weight[:, 3] == 7).all()


def test_the_threshold_is_the_size_in_the_sorted_list():
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(7, 5, generator=generator), 1e-3 * torch.randn(40, generator=generator), torch.zeros(3)]
    sizes = torch.cat([weight.flatten() for weight in weights]).abs().sort().values
    for share in (0.0, 0.02, 0.1, 0.5, 0.77, 1.0):
        count = round(share * len(sizes))
        expected = sizes[count - 1] if count else torch.tensor(-1.0)
        assert torch.equal(magnitude_threshold(weights, share), expected)


@pytest.mark.parametrize(
    ("make", "argument", "values", "expected"),
    [
        (
            Relearn,
            "rates",
            [(), 1e-3, ("a",), (0.0,), (math.inf,), (1e-3, 1e-3), (True,), ([1e-3],)],
            "rates of relearn",
        ),
        (Relearn, "sets", [(), "forget", (1,), ("forgot",)], "sets of relearn"),
        (Relearn, "adapters", [("LoRA",), ("full", "full")], "adapters of relearn"),
        (Relearn, "steps", [0, -1, 1.5], "steps of relearn"),
        (Relearn, "every", [0], "every of relearn"),
        (Relearn, "batch", [0], "batch of relearn"),
        (Relearn, "rank", [0], "rank of relearn"),
        (Relearn, "share", [0.0, 0.6, -0.1], "share of relearn"),
        (Quantize, "kinds", [(), "int8", ("int2",), [["int8"]]], "kinds of quantize"),
        (Prune, "shares", [(), (0.0,), (1.0,), 0.5], "shares of prune"),
        (Prune, "scopes", [("block",)], "scopes of prune"),
        (MergeSibling, "shares", [(0.0,), (1.1,)], "shares of merge"),
        (MergeSibling, "sibling", [3], "sibling of merge"),
    ],
)
def test_what_no_attack_can_be_made_of_is_refused(make, argument, values, expected):
    for value in values:
        with pytest.raises(ValueError, match=f"^{expected} must be ") as error:
            make(**{argument: value})
        assert "\n" not in str(error.value)


def test_lists_are_tuples():
    assert Relearn(rates=[1e-3], sets=["forget"]) == Relearn(rates=(1e-3,), sets=("forget",))
    assert replace(Quantize(kinds=["nf4"])).kinds == ("nf4",)
