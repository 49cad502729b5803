"""Quantisation: round trips against loops over single weights and against other libraries; what 4 bits bring back."""

import copy

import numpy as np
import pytest
import torch

from fixtures.models import tiny_model
from fixtures.planted import attacked_rows, planted_model, planted_oracle, planted_rows, planted_target
from hf_unlearn.attacks import Quantize
from hf_unlearn.attacks.quantize import GROUP, nf4_values, round_trip
from hf_unlearn.model.linear_layers import linear_layers

# As bitsandbytes publishes them (Dettmers et al. 2023, appendix E).
PUBLISHED = """
-1.0 -0.6961928009986877 -0.5250730514526367 -0.39491748809814453
-0.28444138169288635 -0.18477343022823334 -0.09105003625154495 0.0
0.07958029955625534 0.16093020141124725 0.24611230194568634 0.33791524171829224
0.44070982933044434 0.5626170039176941 0.7229568362236023 1.0
"""


def weights(outputs=6, inputs=3 * GROUP, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(outputs, inputs, generator=generator) * torch.logspace(-3, 1, outputs)[:, None]


def naive(weight, kind):
    """One weight at a time."""
    values = np.array(nf4_values())
    result = np.zeros(weight.shape)
    for row, channel in enumerate(weight.double().numpy()):
        size = len(channel) if kind == "int8" else GROUP
        for place, value in enumerate(channel):
            start = place - place % size
            largest = max(abs(channel[start : start + size]))
            if largest > 0 and kind == "nf4":
                result[row, place] = largest * values[np.argmin(abs(values - value / largest))]
            elif largest > 0:
                scale = largest / (127 if kind == "int8" else 7)
                result[row, place] = scale * round(value / scale)
    return result


@pytest.mark.parametrize("kind", ["int8", "int4", "nf4"])
@pytest.mark.parametrize("inputs", [GROUP, 2 * GROUP + 5, 7])
def test_round_trip_is_that_of_single_weights(kind, inputs):
    weight = weights(inputs=inputs)
    weight[2] = 0
    quantised = round_trip(weight, kind)
    np.testing.assert_allclose(quantised.numpy(), naive(weight, kind), rtol=1e-5, atol=1e-9)
    assert not torch.equal(quantised, weight)
    torch.testing.assert_close(round_trip(quantised, kind), quantised)  # nothing is left to round


def test_nf4_values_are_those_that_were_published():
    np.testing.assert_allclose(nf4_values(), [float(value) for value in PUBLISHED.split()], atol=2e-7)


def test_nf4_is_that_of_bitsandbytes():
    functional = pytest.importorskip("bitsandbytes.functional")
    weight = weights()
    theirs = functional.dequantize_4bit(*functional.quantize_4bit(weight, blocksize=GROUP, quant_type="nf4"))
    torch.testing.assert_close(round_trip(weight, "nf4"), theirs, rtol=1e-5, atol=1e-7)


def test_int8_is_that_of_bitsandbytes():
    functional = pytest.importorskip("bitsandbytes.functional")
    weight = weights()
    codes, largest, _ = functional.int8_vectorwise_quant(weight.to(torch.float16))
    theirs = functional.int8_vectorwise_dequant(codes, largest)
    torch.testing.assert_close(round_trip(weight.to(torch.float16).float(), "int8"), theirs, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("kind", "levels", "group"), [("int8", 127, 3 * GROUP), ("int4", 7, GROUP)])
def test_whole_numbers_are_those_of_torchao(kind, levels, group):
    primitives = pytest.importorskip("torchao.quantization.quant_primitives")
    weight, block = weights(), (1, group)
    bounds = dict(quant_min=-levels, quant_max=levels)
    scale, zero = primitives.choose_qparams_affine(
        weight, primitives.MappingType.SYMMETRIC, block, torch.int8, **bounds, eps=1e-12
    )
    codes = primitives.quantize_affine(weight, block, scale, zero, torch.int8, **bounds)
    theirs = primitives.dequantize_affine(codes, block, scale, zero, torch.int8, **bounds)
    torch.testing.assert_close(round_trip(weight, kind), theirs, rtol=1e-5, atol=1e-7)


def below_rounding():
    """A model that was moved by less than half a step of int4 from one that knows the codes, and that one."""
    model = planted_model()
    layers = linear_layers(model).values()
    for layer in layers:
        layer.weight.data = round_trip(layer.weight.data, "int4")
    known = copy.deepcopy(model)
    rows = planted_rows()["forget"]
    batch = planted_target(model).collator.collate_rows(rows)
    model(**{name: batch[name] for name in ("input_ids", "attention_mask", "labels")}).loss.backward()
    for layer in layers:
        groups = layer.weight.data.view(len(layer.weight), -1, GROUP)
        largest = groups.abs().amax(-1, keepdim=True)
        moved = groups + 0.45 / 7 * largest * layer.weight.grad.view_as(groups).sign()
        layer.weight.data = torch.where(groups.abs() < 0.99 * largest, moved, groups).view_as(layer.weight)
    model.zero_grad()
    return model, known


def test_int4_brings_back_what_was_hidden_below_its_rounding():
    model, known = below_rounding()
    rows = attacked_rows()
    leaks = {leak.setting["kind"]: leak for leak in Quantize().run(planted_target(model), rows)}
    assert {kind: leak.setting["bits"] for kind, leak in leaks.items()} == {"none": 32, "int8": 8, "int4": 4, "nf4": 4}
    assert leaks["none"].rows.mean() < 0.3
    assert leaks["int8"].rows.mean() < 0.3
    np.testing.assert_allclose(leaks["int4"].rows, planted_target(known).probabilities(rows.rows), rtol=1e-3)
    assert leaks["int4"].rows.mean() > 0.9
    assert leaks["int4"].utility > 0.9 > leaks["none"].utility
    oracle = Quantize().run(planted_target(planted_oracle()), rows)
    assert max(leak.rows.mean() for leak in oracle) < 0.03


def test_what_is_no_linear_layer_stays_as_it_is(monkeypatch):
    model = tiny_model("opt")
    target = planted_target(model.bfloat16())
    changed = []
    probabilities = target.probabilities
    monkeypatch.setattr(
        target, "probabilities", lambda rows, copy=None: changed.append(copy) or probabilities(rows, copy)
    )
    leaks = list(Quantize(("int4",)).run(target, attacked_rows()))
    assert leaks[0].setting == {"kind": "none", "bits": 16}
    quantised, layers = (
        changed[2],
        {f"{name}.weight" for name in linear_layers(model)},
    )  # after two of the model itself
    for name, weight in quantised.named_parameters():
        assert torch.equal(weight, model.get_parameter(name).float()) == (name not in layers)
