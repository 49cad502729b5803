"""The parts of a plan by hand where they can be, which config it chooses, and what it refuses. Not its accuracy."""

import dataclasses
from typing import Any

import pytest
import torch
from peft import LoraConfig

from fixtures.examples import assert_one_line
from hf_unlearn.data.roles import Role
from hf_unlearn.planning import Hardware, MemoryBreakdown, Plan, Planner, Request, make_plan, plan_to_data, render_plan
from hf_unlearn.planning.optimizer_states import optimizer_cost
from hf_unlearn.planning.request import GIB
from hf_unlearn.planning.shapes import load_config
from hf_unlearn.planning.strategies import packaged_strategies
from hf_unlearn.training.method_specs import anchor_losses, forget_losses, retain_losses
from hf_unlearn.training.objective import Objective

LORA = LoraConfig(r=8, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
MIXED = {"mixed": torch.bfloat16, "checkpointing": True}


def request_of(
    name: str = "opt-125m", forget: Any = "npo", retain: Any = "nll", lora: bool = False, **values: Any
) -> Request:
    objective = Objective(forget_losses(forget), retain_losses(retain))
    values = dict(batch=1, length=64) | values
    optim = values.setdefault("optimizer_name", "adamw_torch_fused")
    return Request(name, load_config(name), LORA if lora else None, objective, optimizer_cost(optim), **values)


def parts_of(
    request: Request, name: str = "none", gpus: int = 1, hardware: Hardware | None = None
) -> dict[str, MemoryBreakdown]:
    (strategy,) = [each for each in packaged_strategies() if each.name == name]
    return Planner(request, hardware).memory(strategy, gpus).moments


def names(plan: Plan) -> list[str]:
    return [option.strategy.name for option in plan.options]


def test_what_is_exact_is_exact():
    """125,239,296 fp32 weights: with their gradients, two averages and, for KL, a copy."""
    total = 125_239_296
    found = parts_of(request_of(retain="kl"))["optimizer"]
    assert found == MemoryBreakdown(weights=4 * total, gradients=4 * total, optimizer=8 * total, reference=4 * total)


def test_the_reference_costs_what_its_mode_does():
    none = parts_of(request_of(forget="simnpo"))
    cached = parts_of(request_of(forget="npo"))
    adapter = parts_of(request_of(retain="kl", lora=True))
    copied = parts_of(request_of(retain="kl", lora=True, reference="copy"))
    assert "reference forward" not in none and "reference forward" not in cached
    assert max(each.reference for each in (none | cached).values()) == 0
    kept = 64 * 768 * 4  # hidden states at the answers of the one retain row
    assert adapter["forward"].reference == kept
    # Without the cache, the forget rows go through the copy as well.
    assert copied["forward"].reference == 4 * 125_239_296 + 2 * kept
    assert adapter["reference forward"].reference > kept


def test_the_likeliest_tokens_are_looked_up():
    """Ids in 8 bytes and log-probs in 4, of the retain row's 64 tokens; no copy of the model, and no forward of it."""
    found = parts_of(request_of(retain="kl", reference="topk", top_k=16))
    assert "reference forward" not in found
    assert max(each.reference for each in found.values()) == 64 * 16 * 12
    assert found["optimizer"].reference == 0


def test_rows_of_every_role_are_counted():
    request = request_of(forget=[{"name": "dpo"}, {"name": "random_mismatch", "k": 5}], batch=2, retain_ratio=1.5)
    rows = {role: request.rows_of(role) for role in Role}
    assert rows == {
        Role.FORGET: 2,
        Role.RETAIN: 3,
        Role.ALTERNATE: 2,
        Role.MISMATCH: 10,
        Role.RETAIN_ALTERNATE: 0,
        Role.HOLDOUT: 0,
    }
    assert request.rows == 17
    anchored = dataclasses.replace(request.objective, anchor=anchor_losses("kl"))
    assert [
        dataclasses.replace(request, objective=anchored, anchor_ratio=ratio).rows_of(Role.HOLDOUT)
        for ratio in (0.25, 1, 1.75)
    ] == [1, 2, 4]
    assert dataclasses.replace(request, answers=0.5).answer_tokens({Role.RETAIN}) == 3 * 32


def test_cached_hidden_states_are_on_disk_and_a_trained_head_is_copied():
    request = request_of(retain="kl", reference="cached", answers=0.5)
    # 1,000 rows of 32 answer tokens, 768 numbers of 4 bytes each.
    assert request.cached_bytes == 1000 * 32 * 768 * 4
    assert "On disk, for each 1,000 retain rows: 0.09 GiB" in render_plan(make_plan(request, Hardware()))
    # OPT's head is its embedding: 50272 x 768 numbers.
    parts = parts_of(request)
    assert "reference forward" not in parts
    assert parts["forward"].reference == 4 * 50272 * 768 + 32 * 768 * 4
    assert parts_of(request_of(retain="kl", reference="cached", lora=True))["optimizer"].reference == 0
    assert request_of(retain="kl").cached_bytes == request_of(reference="cached").cached_bytes == 0


def test_logits_stop_growing_at_a_chunk():
    # The chunk of a GPU of 1 GiB, all of which is taken: 4 MiB, and no room for logits of others.
    little = Hardware(gpu_memory=1)
    few, many = (parts_of(request_of(batch=batch), hardware=little)["head backward"] for batch in (2, 8))
    whole = parts_of(request_of(batch=8))["head backward"]
    assert many.logits < 1.5 * few.logits < whole.logits
    assert many.logits < 50272 * 4 * 64 * 16  # less than one fp32 tensor [T, V]


def test_one_gpu_has_no_one_to_share_with():
    assert names(make_plan(request_of(), Hardware())) == ["none", "zero3_offload"]
    several = make_plan(request_of(), Hardware(gpus=2))
    assert names(several) == ["ddp", "zero1", "zero2", "zero3", "fsdp2", "zero3_offload"]


@pytest.mark.parametrize(
    ("memory", "gpus", "expected"),
    [(80, 8, "ddp"), (24, 8, "zero1"), (8, 8, "zero2"), (6, 8, "fsdp2"), (10, 1, "zero3_offload"), (1, 8, None)],
)
def test_the_cheapest_that_fits(memory, gpus, expected):
    """OPT-1.3b in mixed precision: 25 GiB unsharded."""
    plan = make_plan(request_of("opt-1.3b", **MIXED), Hardware(gpus=gpus, gpu_memory=memory))
    assert (plan.cheapest and plan.cheapest.strategy.name) == expected
    for option in plan.options:
        assert option.memory is not None
        assert option.fits == (option.memory.peak <= 0.92 * memory * GIB)
        assert option.memory.peak == max(parts.total for parts in option.memory.moments.values())


def test_sharding_over_more_gpus_takes_less():
    request = request_of("opt-1.3b", **MIXED)
    planner = Planner(request)
    for strategy in packaged_strategies():
        eight, sixteen = planner.memory(strategy, 8).peak, planner.memory(strategy, 16).peak
        shares = (strategy.deepspeed or strategy.sharded) and not strategy.offload_optimizer
        assert sixteen < eight if shares else sixteen == eight


def test_offloading_must_fit_in_the_machine_too():
    request = request_of("opt-1.3b", **MIXED)
    plan = make_plan(request, Hardware(gpu_memory=10, host_memory=8))
    assert plan.cheapest is None
    offload = plan.options[-1]
    assert offload.memory is not None and offload.memory.host > 8 * GIB and not offload.fits


def test_what_a_run_would_refuse_is_said_and_not_planned():
    plan = make_plan(request_of(retain="hidden", forget="rmu"), Hardware(gpus=2))
    data = plan_to_data(make_plan(request_of(optimizer_name="sgd"), Hardware()))
    refused = {each["name"]: each["refused"] for each in data["options"]}
    assert refused["none"] is None and "optim=adamw_torch under zero3_offload" in refused["zero3_offload"]
    assert "zero3_offload is refused: DeepSpeed makes the step" in render_plan(
        make_plan(request_of(optimizer_name="sgd"), Hardware())
    )
    assert plan.cheapest is not None


@pytest.mark.parametrize("values", [{"gpus": 0}, {"gpus": 3, "machines": 2}, {"gpu_memory": 0}, {"reserve": 1.0}])
def test_hardware_that_is_none_is_refused(values):
    with pytest.raises(ValueError) as error:
        Hardware(**values)
    assert_one_line(str(error.value))


@pytest.mark.parametrize("values", [{"batch": 0}, {"length": 4096}, {"answers": 0.0}])
def test_requests_that_are_none_are_refused(values):
    with pytest.raises(ValueError) as error:
        request_of(**values)
    assert_one_line(str(error.value))
