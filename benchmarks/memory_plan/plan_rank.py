"""Measures one rank for plan_accuracy_ranks.py: planned and real peak memory of sharded runs."""

import dataclasses
import gc
import os
import tempfile
from collections.abc import Iterable
from typing import Any

from accelerate import DeepSpeedPlugin
from torch.distributed.fsdp._fully_shard import _fsdp_param
from torch.distributed.tensor import DTensor
from transformers import AutoConfig, TrainerCallback

from benchmarks.common.sharded_on_cpu import fsdp_on_cpu
from benchmarks.memory_plan.live_memory import LiveMemory
from benchmarks.memory_plan.plan_accuracy import LONG, LORA, MIB, SHORT, Case, build, llama, opt, request_of
from hf_unlearn.planning import Planner
from hf_unlearn.planning.strategies import read_strategy
from hf_unlearn.training.launch.start import find_config

PROCESSES = 2
BUCKET, LIVE, GROUP = 100_000, 300_000, 10**9
BF16 = {"bf16": True}
CASES = {
    "llama, weights": Case(llama(256, 6), SHORT),
    "llama, activations": Case(llama(128, 4), LONG),
    "llama, LoRA": Case(llama(256, 6), {**SHORT, **LORA}),
    "llama, weights, bf16": Case(llama(256, 6), {**SHORT, **BF16}),
    "opt, weights, bf16, accumulation": Case(opt(256, 6), {**SHORT, **BF16, "gradient_accumulation_steps": 2}),
    "llama, activations, bf16": Case(llama(128, 4), {**LONG, **BF16}),
    "llama, LoRA, bf16": Case(llama(256, 6), {**SHORT, **LORA, "dtype": "bfloat16", **BF16}),
}


class RankMemory(LiveMemory):
    """Looks inside the tensors that FSDP2 makes of shards, and knows where a run's second step begins."""

    start = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(issubclass(kind, DTensor) for kind in types):
            return NotImplemented
        return super().__torch_dispatch__(func, types, args, kwargs)

    def _watch(self, tensor: Any, old: bool) -> None:
        if tensor.device.type != "meta":  # DeepSpeed keeps shapes on it
            super()._watch(tensor, old)

    def later_peak(self) -> int:
        """Bytes at the peak from the second step on."""
        alive = highest = 0
        for i, (_, change) in enumerate(self._events):
            alive += change
            highest = max(highest, alive) if i >= self.start else highest
        return highest


class FromSecondStep(TrainerCallback):
    """Marks in a memory where the second step begins."""

    def __init__(self, memory: RankMemory) -> None:
        self.memory = memory

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == 1:
            self.memory.start = len(self.memory._events)


def watch_storages(seen: list[RankMemory]) -> None:
    """Tell the memory of the current run of storages that FSDP2 empties and fills without an operation."""

    def telling(function: Any) -> Any:
        def told(tensor: Any) -> None:
            function(tensor)
            if seen:
                seen[-1]._watch(tensor, False)

        return told

    for name in ("alloc_storage", "free_storage"):
        setattr(_fsdp_param, name, telling(getattr(_fsdp_param, name)))


def small_buffers() -> None:
    """Make the buffers small whose size DeepSpeed fixes whatever the model is."""
    made = DeepSpeedPlugin.__post_init__

    def post_init(plugin: DeepSpeedPlugin) -> None:
        made(plugin)
        plugin.deepspeed_config["zero_optimization"] |= {
            "reduce_bucket_size": BUCKET,
            "allgather_bucket_size": BUCKET,
            "stage3_max_live_parameters": LIVE,
            "stage3_max_reuse_distance": LIVE,
            "stage3_prefetch_bucket_size": 0,
            "stage3_param_persistence_threshold": 0,
        }

    DeepSpeedPlugin.__post_init__ = post_init


def plans_of(config: str, names: Iterable[str]) -> dict[str, Any]:
    """What is planned for each case under a config."""
    strategy = dataclasses.replace(
        read_strategy(find_config(config)), reduce_bucket=BUCKET, live_parameters=LIVE, sub_group=GROUP
    )
    plans = {}
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            AutoConfig.for_model(**CASES[name].model).save_pretrained(folder)
            plans[name] = Planner(request_of(CASES[name], folder, "cpu")[0]).memory(strategy, PROCESSES)
    return plans


def peak_of(config: str, case: Case, seen: list[RankMemory]) -> int:
    """Bytes at the peak of a real run of a case, from its second step on."""
    os.environ["ACCELERATE_MIXED_PRECISION"] = "bf16" if "bf16" in case.arguments else "no"
    with tempfile.TemporaryDirectory() as folder:
        AutoConfig.for_model(**case.model).save_pretrained(folder)
        # Without a bound nothing is measured before the first step.
        case = dataclasses.replace(case, arguments={**case.arguments, "forget_nll_bound": "none"})
        request, values = request_of(case, folder, "cpu")
        with RankMemory() as memory:
            seen.append(memory)
            trainer = build(request, values, folder, "cpu" if config != "fsdp2" else "fsdp2")
            trainer.add_callback(FromSecondStep(memory))
            trainer.train()
        assert trainer.accelerator.num_processes == PROCESSES
        assert trainer.is_deepspeed_enabled == config.startswith("zero")
        assert trainer.is_fsdp_enabled == (config == "fsdp2")
        return memory.later_peak()


def measure(config: str, names: Iterable[str]) -> dict[str, Any]:
    """Planned and measured peaks of this rank, by case; inside a launched process."""
    seen: list[RankMemory] = []
    watch_storages(seen)
    if config == "fsdp2":
        fsdp_on_cpu()
    small_buffers()
    figures = {}
    # All plans before any run: under ZeRO-3, transformers makes every later model split.
    for name, planned in plans_of(config, names).items():
        peak = peak_of(config, CASES[name], seen)
        gc.collect()  # the run's model, before the next one's
        figures[name] = {
            "planned_mib": planned.peak / MIB,
            "measured_mib": peak / MIB,
            "ratio": planned.peak / peak,
            "at": planned.at,
            "moments_mib": {moment: parts.total / MIB for moment, parts in planned.moments.items()},
        }
    return figures
