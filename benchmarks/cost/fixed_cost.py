"""What a step of UnlearningTrainer costs on the host beyond one of plain Trainer, in milliseconds of CPU time.

    python -m benchmarks.cost.fixed_cost --output benchmarks/results/fixed_cost_cpu.json

The model is one decoder block of width 16 with 64 tokens, on rows of 8 to 16 tokens, so that its arithmetic is next
to nothing: what a step takes is Python and the calls of small operators. Both trainers see the same rows in the same
batches and take turns of `--turn` steps in one process with one thread. A step is all that Trainer does for one
optimizer step: read and pad the batch, count, forward, backward, clipping, optimizer, callbacks. CPU time is the
process's own, the median of a turn's steps.

`more` is the median over the turns of (ours - plain). It holds what the losses compute too: the row bound, the
log-probs of a reference, for KL a second forward.

`host` is what surrounds the losses: rows (pairing), collator, answer index, counts, and callbacks with the log of the
components. It is measured in further steps of ours, with a clock around the functions of each part; a part that is
called inside another counts for itself alone, and what the clocks take (some .02 ms a step) is in it. Beside it stands
what plain Trainer takes for its own rows, collator and counts.

`asked` is 1.2 ms: of `host`, and of `more` where the reference makes no forward. `--profile METHOD` prints where the
time of a step goes, function by function.
"""

import argparse
import contextlib
import cProfile
import functools
import pstats
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import datasets
import torch
import transformers
from transformers import Trainer

from benchmarks.common.environment import write_results
from benchmarks.common.synthetic import Sizes
from benchmarks.cost.trainer_pairs import Method, build_pair, steps_of, timed
from hf_unlearn import UnlearningTrainer
from hf_unlearn.data import batch as batches
from hf_unlearn.data.answer_positions import AnswerIndex
from hf_unlearn.data.collator import DataCollatorForUnlearning
from hf_unlearn.data.pairing import ForgetRetainDataset
from hf_unlearn.model import output_head
from hf_unlearn.training.hooks.callbacks import StepEnds
from hf_unlearn.training.hooks.first_step import FirstStepLevels
from hf_unlearn.training.hooks.nonfinite_guard import NonFiniteGuard
from hf_unlearn.training.objective import Objective
from hf_unlearn.training.reference.reference import Reference
from hf_unlearn.training.step.component_log import ComponentLog
from hf_unlearn.training.step.forward import UnlearningForward
from hf_unlearn.training.step.row_levels import RowLevels
from hf_unlearn.training.step.step_counts import StepCounts

ASKED = 1.2  # ms
METHODS = {
    "grad_ascent + nll": Method("grad_ascent"),
    "npo (cached reference) + nll": Method("npo"),
    "simnpo + nll": Method("simnpo"),
    "npo + kl (adapter off), LoRA": Method("npo", "kl", lora=True),
}
# By part of a step, the functions that it is made of: (what holds it, its name).
Functions = Mapping[str, Sequence[tuple[Any, str]]]
HOST = ("rows", "collator", "answer index", "counts", "callbacks and log")
OUR_PARTS: Functions = {
    "rows": [(ForgetRetainDataset, "__getitems__")],
    "collator": [(DataCollatorForUnlearning, "__call__")],
    "answer index": [(batches, "read_answer_index"), (AnswerIndex, "to")],
    "counts": [(StepCounts, "begin_step")],
    "callbacks and log": [
        (StepEnds, "on_step_end"),
        (FirstStepLevels, "on_pre_optimizer_step"),
        (NonFiniteGuard, "on_pre_optimizer_step"),
        (ComponentLog, "add"),
        (ComponentLog, "send"),
    ],
    "reference": [(Reference, "read")],
    "losses": [(RowLevels, "supplied"), (Objective, "__call__")],
    "forward": [(UnlearningForward, "__call__")],  # the model's own included
    "head": [(output_head, "read_positions")],  # its forward
    "rest of compute_loss": [(UnlearningTrainer, "compute_loss")],
}
PLAIN_PARTS: Functions = {
    "rows": [(datasets.Dataset, "__getitems__")],
    "collator": [(transformers.DataCollatorForSeq2Seq, "__call__")],
    "counts": [(Trainer, "_get_num_items_in_batch")],
}


@contextlib.contextmanager
def timed_parts(functions: Functions) -> Iterator[Counter[str]]:
    """Inside, CPU seconds are summed up by part; a function's own, without those of other parts that it calls."""
    seconds: Counter[str] = Counter()
    inner: list[float] = []  # of the functions that are running, the seconds of those that they have called

    def clocked(part: str, function: Any) -> Any:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            inner.append(0.0)
            began = time.process_time()
            try:
                return function(*args, **kwargs)
            finally:
                taken = time.process_time() - began
                seconds[part] += taken - inner.pop()
                if inner:
                    inner[-1] += taken

        return call

    with contextlib.ExitStack() as stack:
        for part, places in functions.items():
            for holder, name in places:
                stack.enter_context(mock.patch.object(holder, name, clocked(part, getattr(holder, name))))
        yield seconds


def turns(ours: Iterator[None], plain: Iterator[None], args: argparse.Namespace) -> list[tuple[float, float]]:
    """Milliseconds of a step of both, turn by turn."""
    for _ in range(args.warmup):
        next(ours), next(plain)
    found = []
    for number in range(args.turns):
        taken = {}
        for steps in (ours, plain) if number % 2 else (plain, ours):
            taken[id(steps)] = 1000 * statistics.median(timed(steps)[1] for _ in range(args.turn))
        found.append((taken[id(ours)], taken[id(plain)]))
    return found


def parts_of_step(steps: Iterator[None], functions: Functions, count: int) -> dict[str, float]:
    """Milliseconds of each part in a step, medians over `count` steps."""
    found: dict[str, list[float]] = {part: [] for part in functions}
    with timed_parts(functions) as seconds:
        for _ in range(count):
            seconds.clear()
            next(steps)
            for part, values in found.items():
                values.append(1000 * seconds[part])
    return {part: statistics.median(values) for part, values in found.items()}


def measure(name: str, batch: int, args: argparse.Namespace) -> dict[str, Any]:
    """The figures of one method at one size of batch."""
    with tempfile.TemporaryDirectory() as folder:
        ours, plain = (steps_of(trainer) for trainer in build_pair(METHODS[name], sizes_of(batch), folder))
        pairs = turns(ours, plain, args)
        parts = parts_of_step(ours, OUR_PARTS, 5 * args.turn)
        plain_parts = parts_of_step(plain, PLAIN_PARTS, 5 * args.turn)
    return {
        "method": name,
        "batch": f"{batch} + {batch}",
        "cpu_ms": statistics.median(own for own, _ in pairs),
        "plain_cpu_ms": statistics.median(other for _, other in pairs),
        "more_ms": statistics.median(own - other for own, other in pairs),
        "host_ms": sum(parts[part] for part in HOST),
        "plain_host_ms": sum(plain_parts.values()),
        "asked_ms": ASKED,
        "parts_ms": parts,
        "plain_parts_ms": plain_parts,
    }


def print_profile(name: str, batch: int, args: argparse.Namespace) -> None:
    """The functions that take most of a step themselves."""
    with tempfile.TemporaryDirectory() as folder:
        for side, trainer in zip(("ours", "plain"), build_pair(METHODS[name], sizes_of(batch), folder), strict=True):
            steps = steps_of(trainer)
            for _ in range(args.warmup):
                next(steps)
            with cProfile.Profile(time.process_time) as profile:
                for _ in range(5 * args.turn):
                    next(steps)
            print(f"{side}: {name}, {5 * args.turn} steps")
            pstats.Stats(profile).sort_stats(args.sort).print_stats(args.lines)


def sizes_of(batch: int) -> Sizes:
    """A model whose arithmetic is next to nothing."""
    return Sizes("llama", vocabulary=64, hidden=16, layers=1, shortest=8, longest=16, batch=batch)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=list(METHODS), metavar="METHOD")
    parser.add_argument("--batches", type=int, nargs="+", default=[4, 8], help="forget rows; as many retain rows")
    parser.add_argument("--turn", type=int, default=40, help="steps of a turn; five times as many have clocks")
    parser.add_argument("--turns", type=int, default=10, help="of each")
    parser.add_argument("--warmup", type=int, default=30)
    parser.add_argument("--profile", choices=list(METHODS), metavar="METHOD", help="print a profile and no times")
    parser.add_argument("--sort", default="tottime", choices=["tottime", "cumtime"], help="of the profile")
    parser.add_argument("--lines", type=int, default=40, help="of the profile")
    parser.add_argument("--output", type=Path, help="JSON file for the figures")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    torch.set_num_threads(1)
    datasets.disable_progress_bars()
    transformers.utils.logging.set_verbosity_error()  # a model with random weights is warned of
    if args.profile:
        print_profile(args.profile, args.batches[0], args)
        return
    print(f"{'method':30} {'rows':>6} {'ms':>6} {'plain':>6} {'more':>6} {'host':>6} {'plain':>6} {'asked':>6}")
    results = []
    for name in args.methods:
        for batch in args.batches:
            row = measure(name, batch, args)
            results.append(row)
            columns = ("cpu_ms", "plain_cpu_ms", "more_ms", "host_ms", "plain_host_ms", "asked_ms")
            print(f"{name:30} {row['batch']:>6}" + "".join(f" {row[column]:6.2f}" for column in columns))
            print("   " + ", ".join(f"{part} {ms:.2f}" for part, ms in row["parts_ms"].items()), flush=True)
    if args.output:
        write_results(args.output, "benchmarks.cost.fixed_cost", results)


if __name__ == "__main__":
    main()
