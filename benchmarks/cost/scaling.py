"""Time and memory of an unlearning step against plain Trainer, as length, vocabulary, batch and ranks grow.

    python -m benchmarks.cost.scaling --output benchmarks/results/scaling_cpu.json      (and scaling_cpu.png)
    python -m benchmarks.cost.scaling --quick
    python -m benchmarks.cost.scaling --axes vocabulary --architectures llama --pairs 9

Both trainers take the same rows in the same batches, in turns (trainer_pairs.py); a ratio is the median over the
pairs, 1 is plain Trainer. CPU time is the process's own and is what to quote on a shared machine. Memory is the peak
of one step above weights, gradients and optimizer states, counted tensor by tensor (live_memory.py); a frozen copy
counts into it. Rows are ragged from 16 tokens up, a third of each prompt. Ranks are processes under DDP over gloo,
each with a batch of its own. Beside the ratios stands what is asked of them; nothing fails.
"""

import argparse
import itertools
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import torch

from benchmarks.common.environment import machine, versions
from benchmarks.common.synthetic import ARCHITECTURES, Sizes
from benchmarks.cost.scaling_chart import draw
from benchmarks.cost.scaling_point import CACHED_METHODS, METHODS, Point, measure, measure_by_ranks

BASE = Sizes(vocabulary=8192, hidden=128, layers=2, shortest=16, longest=256, batch=2)
AXES = {"vocabulary": (8192, 32768, 131072), "length": (64, 128, 256, 512), "batch": (1, 2, 4, 8), "ranks": (1, 2)}
QUICK_BASE = Sizes(vocabulary=512, hidden=32, layers=1, shortest=16, longest=32, batch=2)
QUICK_AXES = {"vocabulary": (512, 1024), "length": (32, 64), "batch": (1, 2), "ranks": (1, 2)}
KL = ("npo + kl (adapter off), LoRA",)
NOT_ASKED = ("npo + kl (frozen copy)", *CACHED_METHODS)


def asked_time(point: dict[str, Any]) -> str:
    """The bound on a ratio of times, in words; empty where none is asked."""
    bounds = {8192: "<= 1.05", 131072: "< 1.00"}
    if point["axis"] != "vocabulary" or point["value"] not in bounds or point["method"] in NOT_ASKED:
        return ""
    return "<= 1.40" if point["method"] in KL else bounds[point["value"]]


def asked_memory(point: dict[str, Any]) -> str:
    """The same for the ratio of memory."""
    asked = (point["axis"], point["value"]) == ("vocabulary", 131072) and point["method"] not in NOT_ASKED
    return "<= 0.50" if asked else ""


def kept(ratio: float, asked: str) -> str:
    """The bound and whether the ratio keeps it."""
    if not asked:
        return ""
    sign, bound = asked.split()
    met = ratio < float(bound) if sign == "<" else ratio <= float(bound)
    return f"{asked} {'yes' if met else 'NO'}"


def points(args: argparse.Namespace) -> list[Point]:
    """Every axis from the base, each with the others at the base's sizes; what two axes share is measured once."""
    base, axes = (QUICK_BASE, QUICK_AXES) if args.quick else (BASE, AXES)
    pairs, warmup = (2, 1) if args.quick else (args.pairs, args.warmup)
    chosen = []
    for axis in args.axes:
        # Vocabulary matters most, and how a model ties its head decides what it costs: both are measured there.
        for architecture in args.architectures if axis == "vocabulary" else args.architectures[:1]:
            for value in axes[axis]:
                sizes, processes = replace(base, architecture=architecture), 1
                if axis == "ranks":
                    processes = value
                else:
                    sizes = replace(sizes, **{"longest" if axis == "length" else axis: value})
                for method in args.methods:
                    chosen.append(Point(axis, value, method, sizes, processes, warmup, pairs))
    return chosen


def run(args: argparse.Namespace) -> list[dict[str, Any]]:
    results: list[dict[str, Any]] = []
    seen: dict[Any, dict[str, Any]] = {}
    print(
        f"{'':26} {'method':30} {'ms':>8} {'cpu':>6} {'wall':>6} {'asked':>11} {'MiB':>7} {'memory':>6} {'asked':>11}"
    )
    for processes, group in itertools.groupby(points(args), lambda point: point.processes):
        if processes > 1:
            rows = iter(measure_by_ranks(list(group)))
        else:
            rows = (measured_once(point, seen) for point in group)
        for row in rows:
            results.append(row)
            write(args, results)  # after every point, so that a run that is cut short keeps what it has
            print(line(row), flush=True)
    return results


def measured_once(point: Point, seen: dict[Any, dict[str, Any]]) -> dict[str, Any]:
    """A point that two axes share stands on both and is measured on the first."""
    key = (point.method, point.sizes)
    if key not in seen:
        seen[key] = measure(point)
    return seen[key] | {"axis": point.axis, "value": point.value}


def line(row: dict[str, Any]) -> str:
    """A row of the table."""
    place = f"{row['sizes']['architecture']}, {row['axis']} {row['value']}"
    time_asked = kept(row["cpu_ratio"], asked_time(row))
    memory_asked = kept(row["memory_ratio"], asked_memory(row))
    return (
        f"{place:26} {row['method']:30} {row['cpu_ms']:8.1f} {row['cpu_ratio']:6.3f} {row['wall_ratio']:6.3f} "
        f"{time_asked:>11} {row['peak_above_mib']:7.1f} {row['memory_ratio']:6.3f} {memory_asked:>11}"
    )


def write(args: argparse.Namespace, results: list[dict[str, Any]]) -> None:
    if args.output is None:
        return
    args.output.parent.mkdir(parents=True, exist_ok=True)
    record = {
        "settings": {key: value for key, value in vars(args).items() if key != "output"},
        "machine": machine(torch.cuda.is_available()) | {"threads": 1},
        "versions": versions(),
        "results": results,
    }
    args.output.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--axes", nargs="+", default=list(AXES), choices=list(AXES))
    parser.add_argument(
        "--methods", nargs="+", default=list(METHODS), choices=[*METHODS, *CACHED_METHODS], metavar="METHOD"
    )
    parser.add_argument("--architectures", nargs="+", default=list(ARCHITECTURES), choices=ARCHITECTURES)
    parser.add_argument("--pairs", type=int, default=5, help="counted pairs of steps a point")
    parser.add_argument("--warmup", type=int, default=1, help="pairs before them")
    parser.add_argument("--quick", action="store_true", help="sizes that only show that it runs")
    parser.add_argument("--output", type=Path, help="JSON file for the figures; the chart goes beside it as PNG")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    torch.set_num_threads(1)
    datasets.disable_progress_bars()
    started = time.monotonic()
    results = run(args)
    write(args, results)
    if args.output:
        draw(results, args.output.with_suffix(".png"))
    print(f"{time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
