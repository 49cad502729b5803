"""CPU time and memory from the trainer's constructor to the end of the first step, against plain Trainer's.

    python -m benchmarks.cost.startup --rows 4000 --output benchmarks/results/startup_cpu.json
    python -m benchmarks.cost.startup --sizes 400 4000 40000 400000 --longest 16 --layers 1 --vocabulary 512 \\
        --eval_batch 64 --output benchmarks/results/growth_cpu.json

Both have the same tokenised rows, read from disk (Arrow), and the same small model: `--rows` forget rows and as many
retain rows. A start is measured twice. "first" has a process of its own, where each also pays for what it imports on
the way (both have imported transformers and this package before); "again" is a later one of a process in which all
of them take turns. The pass of the reference is counted apart. `--sizes` measures growth: every start in a process of
its own, by phase; memory is the peak of resident memory until the end of a phase above that before the constructor,
pages of the rows' files included. Memory is read as Linux tells it.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import datasets

from benchmarks.common.environment import write_results
from benchmarks.common.synthetic import Sizes, make_rows
from benchmarks.cost.startup_point import PLAIN, RUNS, Phases, Starts

ASKED = 1.3  # of the start-up, to plain Trainer's
GROWN = ("npo (cached reference) + nll", "npo (cached reference) + nll, by length")
PHASES = ("prepare", "reference", "first step", "record")


def write_rows(folder: Path, sizes: Sizes, count: int) -> Path:
    """The two sets as token ids on disk."""
    for seed, name in enumerate(("forget", "retain"), 1):
        rows = make_rows(sizes, count, seed).select_columns(["input_ids", "labels"])
        rows.save_to_disk(str(folder / str(count) / name))
    return folder / str(count)


def measured(runs: list[str], rows: Path, args: argparse.Namespace) -> list[Phases]:
    """Starts one after another in a new process."""
    starts = Starts(runs, str(rows), sizes_of(args), args.eval_batch)
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "phases.json")
        command = [sys.executable, "-m", "benchmarks.cost.startup_point", json.dumps(asdict(starts)), str(output)]
        # A model with random weights is warned of.
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if done.returncode:
            sys.exit(done.stderr)
        return json.loads(output.read_text(encoding="utf-8"))


def compare(args: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Medians of start-up seconds of plain Trainer and of every run, and of the ratios pair by pair."""
    rows = write_rows(folder, sizes_of(args), args.rows)
    turns = [PLAIN, *args.runs]
    found: dict[str, dict[str, list[Phases]]] = {kind: {name: [] for name in turns} for kind in ("first", "again")}
    for turn in range(args.pairs):
        for name in turns if turn % 2 else turns[::-1]:
            found["first"][name] += measured([name], rows, args)
    again = measured(turns * (args.pairs + 1), rows, args)
    for number, phases in enumerate(again[len(turns) :]):
        found["again"][turns[number % len(turns)]].append(phases)
    results = []
    for kind, by_name in found.items():
        plain = [phases["start-up"]["cpu_s"] for phases in by_name[PLAIN]]
        for name in turns:
            own = [phases["start-up"]["cpu_s"] for phases in by_name[name]]
            ratio = statistics.median(one / other for one, other in zip(own, plain, strict=True))
            row = {"run": name, "start": kind, "startup_s": statistics.median(own), "ratio": ratio, "asked": ASKED}
            row |= {f"{phase}_s": median_of(by_name[name], phase) for phase in PHASES if phase in by_name[name][0]}
            results.append(row)
            print(f"{kind:6} {name:44} {row['startup_s']:7.3f} s {ratio:6.2f}", flush=True)
    return results


def median_of(starts: list[Phases], phase: str) -> float:
    """CPU seconds of a phase."""
    return statistics.median(phases[phase]["cpu_s"] for phases in starts)


def grow(args: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Seconds and memory of every phase by rows."""
    results = []
    for count in args.sizes:
        rows = write_rows(folder, sizes_of(args), count)
        for name in (PLAIN, *GROWN):
            (phases,) = measured([name], rows, args)
            results.append({"run": name, "rows": count, "phases": phases})
            seconds = "".join(f" {phase} {phases[phase]['cpu_s']:.2f} s" for phase in PHASES if phase in phases)
            print(f"{count:7} {name:44}{seconds}, {peak_of(phases):.0f} MiB", flush=True)
    return results


def peak_of(phases: Phases) -> float:
    """The peak of all phases, MiB."""
    return max(phase.get("peak_above_mib", 0.0) for phase in phases.values())


def sizes_of(args: argparse.Namespace) -> Sizes:
    """Of model, rows and batch."""
    return Sizes("llama", args.vocabulary, args.hidden, args.layers, args.shortest, args.longest, args.batch)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=4000, help="forget rows, and as many retain rows")
    parser.add_argument("--sizes", type=int, nargs="+", help="the same, several of them: measures growth")
    parser.add_argument("--runs", nargs="+", default=list(RUNS)[:3], choices=list(RUNS), metavar="RUN")
    parser.add_argument("--pairs", type=int, default=5, help="starts of each, of either kind")
    parser.add_argument("--batch", type=int, default=8, help="forget rows a step; as many retain rows")
    parser.add_argument("--eval_batch", type=int, default=8, help="rows of a forward of the reference pass")
    parser.add_argument("--vocabulary", type=int, default=8192)
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--shortest", type=int, default=8)
    parser.add_argument("--longest", type=int, default=128)
    parser.add_argument("--output", type=Path, help="JSON file for the figures")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory() as folder:
        results = compare(args, Path(folder)) if args.sizes is None else grow(args, Path(folder))
    if args.output:
        write_results(args.output, "benchmarks.cost.startup", results)


if __name__ == "__main__":
    main()
