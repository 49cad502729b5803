"""Time and peak memory of an unlearning step against a plain Trainer step on the same concatenated tokens.

    python -m benchmarks.cost.step_time --steps 30 --output benchmarks/results/step_time_cpu.json

Both trainers see the same rows in the same batches (alternates and mismatches too), and take turns step by step, so
that a machine that slows down slows both. A step is all that Trainer does for one optimizer step: read and pad the
batch, forward, backward, clipping, optimizer. `unseen_level`, and a method with an anchor, are set against simnpo on
the same forget and retain rows. Ratios are medians over the pairs; CPU time is the process's own, and is what to quote
on a shared machine. Memory is the peak of one more step of each above weights, gradients and optimizer
states, counted tensor by tensor (live_memory.py; on a GPU the allocator's), frozen copy included. What rises with
length, vocabulary, batch and ranks is in scaling.py. `--profile METHOD` prints where the time goes.
"""

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import torch

from benchmarks.common.environment import machine, versions
from benchmarks.common.ratio_chart import draw
from benchmarks.common.synthetic import ARCHITECTURES, Sizes
from benchmarks.cost.trainer_memory import memory_of_step
from benchmarks.cost.trainer_pairs import Method, build_pair, paired_times, steps_of, time_figures
from hf_unlearn.losses import FORGET_LOSSES, RETAIN_LOSSES
from hf_unlearn.steps import STEP_WRAPPERS


def all_methods() -> dict[str, Method]:
    """The pairs with a time that is asked of them, then every other loss, wrapper and weighting on a common base."""
    methods = {
        "grad_ascent + nll": Method("grad_ascent", asked=1.05),
        "simnpo + nll": Method("simnpo", asked=1.05),
        "npo (cached reference) + nll": Method("npo", asked=1.05),
        "npo (cached reference) + nll, LoRA": Method("npo", lora=True, asked=1.05),
        "npo + kl (adapter off), LoRA": Method("npo", "kl", lora=True, asked=1.40),
        "npo + kl (frozen copy)": Method("npo", "kl", asked=1.45),
        # Levels need holdout rows and no bound; a step reads no more than simnpo's.
        "unseen_level + nll on simnpo + nll": Method(
            "unseen_level",
            asked=1.15,
            arguments={"levels": "holdout", "forget_nll_bound": None},
            beside=Method("simnpo"),
        ),
    }
    covered = {method.forget_loss for method in methods.values()}
    for name, loss in FORGET_LOSSES.items():
        if name not in covered and not loss.of_given_reference:  # which takes a model of the user's
            partner = "hidden" if name == "rmu" else "nll"
            methods[f"{name} + {partner}"] = Method(name, partner)
    methods["rmu + hidden, no bound (forward ends early)"] = Method(
        "rmu", "hidden", arguments={"forget_nll_bound": None}
    )
    for name in RETAIN_LOSSES:
        if name not in ("nll", "kl", "hidden"):
            methods[f"simnpo + {name}"] = Method("simnpo", name)
    for name in STEP_WRAPPERS:
        methods[f"simnpo + nll, {name}"] = Method("simnpo", arguments={"step_wrappers": name})
    methods["simnpo + nll, primal_dual"] = Method("simnpo", arguments={"weighting": "primal_dual"})
    methods["simnpo + nll, sophia"] = Method("simnpo", arguments={"optim": "sophia"})
    # A quarter of a holdout row to each forget row, and the reference's forward of it, on top of the other rows.
    for kind, lora in (("frozen copy", False), ("adapter off", True)):
        plain = Method("simnpo", lora=lora)
        methods[f"anchor kl ({kind}) on simnpo + nll"] = Method(
            "simnpo", lora=lora, asked=1.5, arguments={"anchor_loss": "kl"}, beside=plain
        )
    return methods


METHODS = all_methods()


def measure(args: argparse.Namespace, name: str) -> dict[str, Any]:
    """Medians of both, the median of the ratios pair by pair, and the memory of one more step of each."""
    with tempfile.TemporaryDirectory() as folder:
        method = METHODS[name]
        method = replace(method, arguments=method.arguments | {"max_tokens_per_batch": args.max_tokens_per_batch})
        ours, plain = build_pair(method, sizes_of(args), folder)
        steps, plain_steps = steps_of(ours), steps_of(plain)
        figures = time_figures(paired_times(steps, plain_steps, args.warmup, args.steps))
        memory = memory_of_step(ours, steps)["peak_above_mib"]
        plain_memory = memory_of_step(plain, plain_steps)["peak_above_mib"]
    return {
        "method": name,
        "asked": METHODS[name].asked,
        **figures,
        "memory_mib": memory,
        "plain_memory_mib": plain_memory,
        "memory_ratio": memory / plain_memory,
    }


def print_profile(args: argparse.Namespace, name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for side, trainer in zip(("ours", "plain"), build_pair(METHODS[name], sizes_of(args), folder), strict=True):
            steps = steps_of(trainer)
            for _ in range(args.warmup):
                next(steps)
            with torch.profiler.profile() as profile:
                for _ in range(5):
                    next(steps)
            print(f"{side}: {name}\n{profile.key_averages().table(sort_by='self_cpu_time_total', row_limit=15)}")


def sizes_of(args: argparse.Namespace) -> Sizes:
    return Sizes(
        args.architecture, args.vocabulary, args.hidden, args.layers, args.shortest, args.longest, batch=args.batch
    )


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=list(METHODS), metavar="METHOD")
    parser.add_argument("--steps", type=int, default=20, help="counted pairs of steps a method")
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--batch", type=int, default=8, help="forget rows a step; as many retain rows")
    parser.add_argument("--architecture", choices=ARCHITECTURES, default="llama")
    parser.add_argument("--vocabulary", type=int, default=8192)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--shortest", type=int, default=16)
    parser.add_argument("--longest", type=int, default=128)
    parser.add_argument("--max_tokens_per_batch", type=int, help="of ours; plain Trainer takes whole batches")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--profile", choices=list(METHODS), metavar="METHOD", help="print a profile and no times")
    parser.add_argument("--output", type=Path, help="JSON file for the figures")
    return parser.parse_args()


def write(args: argparse.Namespace, results: list[dict[str, Any]]) -> None:
    record = {
        "settings": {key: value for key, value in vars(args).items() if key not in ("output", "profile", "methods")},
        "machine": machine(torch.cuda.is_available()),
        "versions": versions(),
        "results": results,
    }
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    headings = {"cpu_ratio": "CPU time of a step", "memory_ratio": "peak above weights, gradients, optimizer"}
    panels = {heading: {row["method"]: row[name] for row in results} for name, heading in headings.items()}
    draw(panels, args.output.with_suffix(".png"), "plain Trainer")


def main() -> None:
    args = parse_args()
    torch.set_num_threads(args.threads)
    datasets.disable_progress_bars()
    if args.profile:
        print_profile(args, args.profile)
        return
    print(f"{'method':44} {'ms':>8} {'plain':>8} {'ratio':>7} {'cpu ratio':>9} {'asked':>6} {'MiB':>7} {'plain':>7}")
    results = []
    for name in args.methods:
        row = measure(args, name)
        results.append(row)
        if args.output:  # after every method, so that a run that is cut short keeps what it has
            write(args, results)
        print(
            f"{name:44} {row['wall_ms']:8.1f} {row['plain_wall_ms']:8.1f} {row['wall_ratio']:7.3f} "
            f"{row['cpu_ratio']:9.3f} {row['asked'] or '':>6} {row['memory_mib']:7.1f} {row['plain_memory_mib']:7.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
