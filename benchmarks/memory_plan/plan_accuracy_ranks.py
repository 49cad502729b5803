"""Compares `hf-unlearn plan` for sharded runs with the tensors alive on rank 0 of two CPU processes.

    python -m benchmarks.memory_plan.plan_accuracy_ranks --output benchmarks/results/plan_accuracy_ranks_cpu.json

Starts itself under accelerate for each packaged config. Buffers that DeepSpeed makes of a fixed size, whatever the
model, are made small here, in the run and in the plan alike, or they would be all that is measured. The peak is that
of the steps after the first: DeepSpeed on a CPU converts and splits the model where on a GPU it loads it split. FSDP2
runs on CPUs by telling accelerate that gloo is a backend of GPUs. What a GPU adds (streams, caches) is not seen.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.common.environment import machine, versions
from benchmarks.memory_plan.plan_rank import CASES, PROCESSES, measure
from hf_unlearn.training.launch.start import find_config

CONFIGS = ("ddp", "zero1", "zero2", "zero3", "fsdp2")


def launch(config: str, only: list[str] | None) -> dict[str, Any]:
    """The figures of a config, from two processes; bf16 and fp32 apart, since a config has one precision."""
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        # What accelerate is told is a GPU cannot do bf16 here.
        for precision in ("no",) if config == "fsdp2" else ("no", "bf16"):
            output = Path(folder) / f"{precision}.json"
            command = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", str(PROCESSES)]
            command += ["--config_file", str(find_config(config)), "--main_process_port", "0"]
            command += ["--mixed_precision", precision, "--module", "benchmarks.memory_plan.plan_accuracy_ranks"]
            command += ["--rank-of", config, "--output", str(output)]
            names = [n for n in (only or CASES) if ("bf16" in n) == (precision == "bf16")]
            if not names:
                continue
            done = subprocess.run([*command, "--only", *names], capture_output=True, text=True)
            if done.returncode:
                raise SystemExit(done.stderr[-6000:])
            figures |= json.loads(output.read_text(encoding="utf-8"))
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configs", nargs="+", choices=CONFIGS, default=CONFIGS)
    parser.add_argument("--only", nargs="+", choices=CASES, help="names of cases", metavar="CASE")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--rank-of", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.rank_of:
        measured = measure(args.rank_of, args.only or CASES)
        if os.environ["RANK"] == "0":
            args.output.write_text(json.dumps(measured), encoding="utf-8")
        return
    figures: dict[str, Any] = {}
    print(f"{'case':36} {'config':8} {'planned':>9} {'measured':>9} {'ratio':>6}  peak at")
    for config in args.configs:
        figures[config] = launch(config, args.only)
        for name, case in figures[config].items():
            print(
                f"{name:36} {config:8} {case['planned_mib']:9.1f} {case['measured_mib']:9.1f} {case['ratio']:6.3f}  "
                f"{case['at']}",
                flush=True,
            )
    if args.output:
        text = json.dumps({"machine": machine(False), "versions": versions(), "configs": figures}, indent=1)
        args.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
