"""What `hf-unlearn plan` says of sharded runs, against the tensors alive on rank 0 of two processes on a CPU.

    python benchmarks/plan_accuracy_ranks.py --output benchmarks/results/plan_accuracy_ranks_cpu.json

Starts itself under accelerate for each packaged config. Buffers that DeepSpeed makes of a fixed size, whatever the
model, are made small here, in the run and in the plan alike, or they would be all that is measured. The peak is that
of the steps after the first: DeepSpeed on a CPU converts and splits the model where on a GPU it loads it split. FSDP2
runs on CPUs by telling accelerate that gloo is a backend of GPUs. What a GPU adds (streams, caches) is not seen.
"""

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

PROCESSES = 2
BUCKET, LIVE, GROUP = 100_000, 300_000, 10**9
CONFIGS = ("ddp", "zero1", "zero2", "zero3", "fsdp2")


def measure(config: str, only: list[str] | None) -> dict[str, Any]:
    """Planned and measured peaks of this rank; inside a launched process."""
    import gc

    from accelerate import DeepSpeedPlugin, PartialState
    from accelerate.utils import DistributedType
    from live_memory import LiveMemory
    from plan_accuracy import LONG, LORA, MIB, SHORT, Case, build, llama, opt, request_of
    from torch.distributed.fsdp._fully_shard import _fsdp_param
    from torch.distributed.tensor import DTensor
    from transformers import AutoConfig, TrainerCallback

    from hf_unlearn.launching import find_config
    from hf_unlearn.planning import Planner
    from hf_unlearn.planning.strategies import read_strategy

    class RankMemory(LiveMemory):
        """Looks inside the tensors that FSDP2 makes of shards."""

        start = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if any(issubclass(each, DTensor) for each in types):
                return NotImplemented
            return super().__torch_dispatch__(func, types, args, kwargs)

        def _watch(self, tensor: Any, old: bool) -> None:
            if tensor.device.type != "meta":  # DeepSpeed keeps shapes on it
                super()._watch(tensor, old)

        def later_peak(self) -> int:
            alive = highest = 0
            for i, (_, change) in enumerate(self._events):
                alive += change
                highest = max(highest, alive) if i >= self.start else highest
            return highest

    class FromSecondStep(TrainerCallback):
        def __init__(self, memory: RankMemory) -> None:
            self.memory = memory

        def on_step_end(self, *args: Any, **_: Any) -> None:
            if args[1].global_step == 1:
                self.memory.start = len(self.memory._events)

    # FSDP2 empties and fills storages without an operation that could be seen.
    seen: list[RankMemory] = []
    for name in ("alloc_storage", "free_storage"):
        setattr(_fsdp_param, name, _telling(getattr(_fsdp_param, name), seen))
    if config == "fsdp2":
        os.environ["ACCELERATE_TORCH_DEVICE"] = "cpu"
        PartialState._prepare_backend = lambda self, *args, **kwargs: ("gloo", DistributedType.MULTI_GPU)
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
    bf16 = {"bf16": True}
    cases = {
        "llama, weights": Case(llama(256, 6), SHORT),
        "llama, activations": Case(llama(128, 4), LONG),
        "llama, LoRA": Case(llama(256, 6), {**SHORT, **LORA}),
        "llama, weights, bf16": Case(llama(256, 6), {**SHORT, **bf16}),
        "opt, weights, bf16, accumulation": Case(opt(256, 6), {**SHORT, **bf16, "gradient_accumulation_steps": 2}),
        "llama, activations, bf16": Case(llama(128, 4), {**LONG, **bf16}),
        "llama, LoRA, bf16": Case(llama(256, 6), {**SHORT, **LORA, "dtype": "bfloat16", **bf16}),
    }
    strategy = dataclasses.replace(
        read_strategy(find_config(config)), reduce_bucket=BUCKET, live_parameters=LIVE, sub_group=GROUP
    )
    found = {}
    plans = {}
    for name in only or NAMES:  # before any run: under ZeRO-3, transformers makes every later model split
        with tempfile.TemporaryDirectory() as folder:
            AutoConfig.for_model(**cases[name].model).save_pretrained(folder)
            plans[name] = Planner(request_of(cases[name], folder, "cpu")[0]).memory(strategy, PROCESSES)
    for name, planned in plans.items():
        case = cases[name]
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
            peak = memory.later_peak()
            del trainer
        gc.collect()
        found[name] = {
            "planned_mib": planned.peak / MIB,
            "measured_mib": peak / MIB,
            "ratio": planned.peak / peak,
            "at": planned.at,
            "moments_mib": {moment: parts.total / MIB for moment, parts in planned.moments.items()},
        }
    return found


def _telling(function: Any, seen: list[Any]) -> Any:
    """A function that changes a tensor's storage, and tells the memory of the current run."""

    def told(tensor: Any) -> None:
        function(tensor)
        if seen:
            seen[-1]._watch(tensor, False)

    return told


def launch(config: str, only: list[str] | None) -> dict[str, Any]:
    """The figures of a config, from two processes; bf16 and fp32 apart, since a config has one precision."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        # What accelerate is told is a GPU cannot do bf16 here.
        for precision in ("no",) if config == "fsdp2" else ("no", "bf16"):
            output = Path(folder) / f"{precision}.json"
            command = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", str(PROCESSES)]
            command += ["--config_file", str(_packaged(config)), "--main_process_port", "0"]
            command += ["--mixed_precision", precision, __file__, "--rank-of", config, "--output", str(output)]
            names = [n for n in (only or NAMES) if ("bf16" in n) == (precision == "bf16")]
            if not names:
                continue
            done = subprocess.run([*command, "--only", *names], capture_output=True, text=True)
            if done.returncode:
                raise SystemExit(done.stderr[-6000:])
            found |= json.loads(output.read_text(encoding="utf-8"))
    return found


NAMES = (
    "llama, weights",
    "llama, activations",
    "llama, LoRA",
    "llama, weights, bf16",
    "opt, weights, bf16, accumulation",
    "llama, activations, bf16",
    "llama, LoRA, bf16",
)


def _packaged(config: str) -> Path:
    return Path(__file__).resolve().parent.parent / "hf_unlearn" / "configs" / f"{config}.yaml"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configs", nargs="+", choices=CONFIGS, default=CONFIGS)
    parser.add_argument("--only", nargs="+", help="names of cases")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--rank-of", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.rank_of:
        found = measure(args.rank_of, args.only)
        if os.environ["RANK"] == "0":
            args.output.write_text(json.dumps(found), encoding="utf-8")
        return
    figures: dict[str, Any] = {}
    print(f"{'case':36} {'config':8} {'planned':>9} {'measured':>9} {'ratio':>6}  peak at")
    for config in args.configs:
        figures[config] = launch(config, args.only)
        for name, each in figures[config].items():
            print(
                f"{name:36} {config:8} {each['planned_mib']:9.1f} {each['measured_mib']:9.1f} {each['ratio']:6.3f}  "
                f"{each['at']}",
                flush=True,
            )
    if args.output:
        from environment import machine, versions

        text = json.dumps({"machine": machine(False), "versions": versions(), "configs": figures}, indent=1)
        args.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
