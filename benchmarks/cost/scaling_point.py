"""One point of scaling.py: a method and sizes, measured against plain Trainer in one process or by the ranks of DDP.

scaling.py calls `measure` itself for one process, and starts this file by torchrun for several.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import datasets
import torch

from benchmarks.common.synthetic import Sizes
from benchmarks.cost.trainer_memory import memory_of_step
from benchmarks.cost.trainer_pairs import Method, build_pair, paired_times, steps_of, time_figures

METHODS = {
    "grad_ascent + nll": Method("grad_ascent"),
    "npo (cached) + nll": Method("npo"),
    "simnpo + nll": Method("simnpo"),
    "npo + kl (adapter off), LoRA": Method("npo", "kl", lora=True),
    "npo + kl (frozen copy)": Method("npo", "kl"),
}
_CACHED = {"reference": "cached"}
# Measured on request: hidden states of the reference on disk, against plain Trainer and against what they stand for.
CACHED_METHODS = {
    "npo + kl (cached), LoRA": Method("npo", "kl", lora=True, arguments=_CACHED),
    "npo + kl (cached)": Method("npo", "kl", arguments=_CACHED),
    "cached / adapter off, LoRA": Method(
        "npo", "kl", lora=True, arguments=_CACHED, beside=Method("npo", "kl", lora=True)
    ),
    "cached / frozen copy": Method("npo", "kl", arguments=_CACHED, beside=Method("npo", "kl")),
}
KEPT = ("weights_mib", "gradients_mib", "optimizer_mib", "frozen_copy_mib")


@dataclass(frozen=True)
class Point:
    """What is measured: where it stands on its axis, and how often."""

    axis: str
    value: int
    method: str
    sizes: Sizes
    processes: int = 1
    warmup: int = 2
    pairs: int = 5


def measure(point: Point) -> dict[str, Any]:
    """Medians of paired steps and the memory of one more, in this process (as one of `point.processes`)."""
    with tempfile.TemporaryDirectory() as folder:
        ours, plain = build_pair((METHODS | CACHED_METHODS)[point.method], point.sizes, folder, point.processes)
        for trainer in (ours, plain):
            # DDP has modes that fall back to one process in silence.
            assert trainer.accelerator.num_processes == point.processes
        steps, plain_steps = steps_of(ours), steps_of(plain)
        figures = time_figures(paired_times(steps, plain_steps, point.warmup, point.pairs))
        memory, plain_memory = memory_of_step(ours, steps), memory_of_step(plain, plain_steps)
    assert all(memory[key] == plain_memory[key] for key in KEPT[:3]), "the two trainers do not train the same weights"
    return asdict(point) | {
        **figures,
        **{key: memory[key] for key in KEPT},
        "peak_above_mib": memory["peak_above_mib"],
        "plain_peak_above_mib": plain_memory["peak_above_mib"],
        "memory_ratio": memory["peak_above_mib"] / plain_memory["peak_above_mib"],
    }


def measure_by_ranks(points: list[Point]) -> list[dict[str, Any]]:
    """The same by several processes, started once for all the points, as rank 0 sees it."""
    (processes,) = {point.processes for point in points}
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "figures.json")
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command += [f"--nproc_per_node={processes}", "-m", "benchmarks.cost.scaling_point"]
        command += [json.dumps([asdict(point) for point in points]), str(output)]
        # DDP warns at every start that no parameter was unused: plain Trainer has it look.
        subprocess.run(command, check=True, env=os.environ | {"TORCH_CPP_LOG_LEVEL": "ERROR"})
        return json.loads(output.read_text(encoding="utf-8"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("points", help="JSON of a list of Points")
    parser.add_argument("output", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    datasets.disable_progress_bars()
    points = [Point(**fields | {"sizes": Sizes(**fields["sizes"])}) for fields in json.loads(args.points)]
    figures = [measure(point) for point in points]
    if torch.distributed.get_rank() == 0:
        args.output.write_text(json.dumps(figures), encoding="utf-8")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
