"""Weights, gradients and optimizer states per GPU, by hand, and what packaged configs are read as."""

import dataclasses
from typing import Any

import pytest
import torch
from transformers import LlamaConfig

from fixtures.examples import assert_four_parts, assert_one_line
from hf_unlearn.planning.counts import Counts
from hf_unlearn.planning.optimizer_states import OPTIMIZER_COSTS, optimizer_cost
from hf_unlearn.planning.request import Request
from hf_unlearn.planning.strategies import Kind, Strategy, packaged_strategies, read_strategy, states
from hf_unlearn.training.method_specs import forget_losses
from hf_unlearn.training.objective import Objective

MIXED = torch.bfloat16
N = 1_000_000  # trained elements
BUCKET = 1000
COUNTS = Counts(
    frozen=0,
    trained=N,
    adapters=0,
    linear=0,
    block=80_000,
    trained_block=80_000,
    embedding=50_000,
    head=50_000,
    largest=50_000,
    trained_largest=50_000,
    factored=3000,
    trains_embedding=True,
    trains_head=True,
    buffers=0,
)


def request_of(**values: Any) -> Request:
    objective = Objective(forget_losses("npo"), [])
    optimizer = optimizer_cost(values.pop("optim", "adamw_torch_fused"))
    return Request("model", LlamaConfig(max_position_embeddings=1024), None, objective, optimizer, **values)


def strategy_of(kind: Kind, **values: Any) -> Strategy:
    return Strategy(str(kind), kind, reduce_bucket=BUCKET, live_parameters=10_000, sub_group=10**9, **values)


# kind, gpus, mixed precision -> bytes an element of weights, gradients at the end, buffers, optimizer states
@pytest.mark.parametrize(
    ("kind", "gpus", "mixed", "weights", "gradients", "buffers", "optimizer"),
    [
        (Kind.SINGLE, 1, None, 4, 4, 0, 8),
        (Kind.SINGLE, 1, MIXED, 4, 4, 0, 8),  # fp32 weights under autocast
        (Kind.DDP, 4, None, 4, 4, 4, 8),  # and the reducer's buckets
        (Kind.ZERO_2, 4, MIXED, 2, 2 / 4, 0, (4 + 8) / 4),  # fp32 masters and two averages
        (Kind.ZERO_3, 4, MIXED, 2 / 4, 0, 2 / 4, (4 + 8) / 4),
        (Kind.ZERO_3, 4, None, 4 / 4, 0, 4 / 4, (4 + 8) / 4),  # masters of fp32 weights too
        (Kind.FSDP2, 4, MIXED, 4 / 4, 4 / 4, 0, 8 / 4),
    ],
)
def test_states_by_hand(kind, gpus, mixed, weights, gradients, buffers, optimizer):
    found = states(request_of(mixed=mixed), COUNTS, strategy_of(kind), gpus)
    assert (found.weights, found.optimizer) == (weights * N, optimizer * N)
    bucket = BUCKET * (4 if mixed is None else 2) if kind.startswith("zero") else 0
    assert found.gradients == gradients * N
    assert found.buffers == buffers * N + bucket


def test_offloading_leaves_buffers_alone():
    offload = strategy_of(Kind.ZERO_3, offload_optimizer=True, offload_parameters=True)
    kept = states(request_of(mixed=MIXED), COUNTS, strategy_of(Kind.ZERO_3), 4)
    found = states(request_of(mixed=MIXED), COUNTS, offload, 4)
    assert (found.weights, found.gradients, found.optimizer) == (0, 0, 0)
    assert found.gathered == kept.gathered == (10_000 + 50_000) * 2
    assert found.host >= (2 + 4 + 8) * N / 4 and kept.host == 0


def test_a_quantised_base_takes_the_bytes_of_its_codes():
    lora = dataclasses.replace(COUNTS, frozen=N, trained=1000, linear=900_000, trains_head=False)
    whole = states(request_of(dtype=MIXED), lora, strategy_of(Kind.SINGLE), 1)
    quantised = states(request_of(dtype=MIXED, quantised=0.5625), lora, strategy_of(Kind.SINGLE), 1)
    assert whole.weights - quantised.weights == 900_000 * (2 - 0.5625)


@pytest.mark.parametrize(
    ("optim", "expected"),
    [
        ("adamw_torch_fused", 8 * N),
        ("adamw_torch", 8 * N),
        ("adamw_8bit", 2 * N * (1 + 4 / 256)),
        ("sophia", 8 * N),
        ("adafactor", 4 * 3000),
        ("sgd", 0),
    ],
)
def test_optimizer_states(optim, expected):
    assert optimizer_cost(optim).states(COUNTS, 4) == expected


def test_16_bit_weights_have_16_bit_averages_but_sophias_are_fp32():
    assert optimizer_cost("adamw_torch_fused").states(COUNTS, 2) == 4 * N
    assert optimizer_cost("sophia").states(COUNTS, 2) == 8 * N


@pytest.mark.parametrize("optim", ["adamw_torch", "adamw_torch_fused", "sgd", "rmsprop", "adagrad"])
def test_torchs_optimizers_keep_so_many_averages(optim):
    """Each really steps once."""
    weight = torch.nn.Parameter(torch.ones(64, 64))
    classes = {"sgd": torch.optim.SGD, "rmsprop": torch.optim.RMSprop, "adagrad": torch.optim.Adagrad}
    optimizer = classes.get(optim, torch.optim.AdamW)([weight], lr=0.1)
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    kept = [value for value in optimizer.state[weight].values() if isinstance(value, torch.Tensor) and value.ndim]
    assert len(kept) == OPTIMIZER_COSTS[optim].averages


def test_an_optimizer_that_is_not_known_is_refused():
    with pytest.raises(ValueError, match="galore_adamw") as error:
        optimizer_cost("galore_adamw")
    assert_one_line(str(error.value))


def test_packaged_configs_as_strategies():
    found = packaged_strategies()
    assert [each.name for each in found] == ["none", "ddp", "zero1", "zero2", "zero3", "fsdp2", "zero3_offload"]
    assert found[-1].offload_optimizer and found[-1].offload_parameters and found[-1].kind is Kind.ZERO_3
    assert all(each.reduce_bucket == 5e8 for each in found if each.deepspeed)
    assert {each.name for each in packaged_strategies(machines=2)} >= {"ddp_two_nodes", "zero3_two_nodes", "zero2"}


def test_a_config_that_shares_in_another_way_is_refused(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("distributed_type: MEGATRON_LM\n")
    with pytest.raises(ValueError, match="MEGATRON_LM") as error:
        read_strategy(path)
    assert_four_parts(str(error.value))
