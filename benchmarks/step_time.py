"""Time and peak memory of an unlearning step against a plain Trainer step on the same concatenated tokens.

    python benchmarks/step_time.py --steps 30 --output benchmarks/results/step_time_cpu.json

Both trainers see the same rows in the same batches (alternates and mismatches too), and take turns step by step, so
that a machine that slows down slows both. A step is all that Trainer does for one optimizer step: read and pad the
batch, forward, backward, clipping, optimizer. Ratios are medians over the pairs; CPU time is the process's own, and is
what to quote on a shared machine. Peak memory is what a process's resident set (on a GPU: the allocated memory) rises
above its level before the first step, optimizer state and frozen copy included, each trainer in a process of its own.
`--profile METHOD` prints where the time goes.
"""

import argparse
import json
import multiprocessing
import platform
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
import peft
import torch
import transformers
from synthetic import lora_config, make_model, make_rows, make_tokenizer
from transformers import (
    PrinterCallback,
    Trainer,
    TrainingArguments,
)

from hf_unlearn import UnlearningConfig, UnlearningTrainer
from hf_unlearn.data.collator import in_role_order
from hf_unlearn.losses import FORGET_LOSSES, RETAIN_LOSSES
from hf_unlearn.steps import STEP_WRAPPERS


@dataclass(frozen=True)
class Method:
    """What is compared with plain Trainer, and the ratio of step times that is asked of it, if any."""

    forget_loss: str
    retain_loss: str = "nll"
    lora: bool = False
    asked: float | None = None
    arguments: dict[str, Any] = field(default_factory=dict)


def all_methods() -> dict[str, Method]:
    """The pairs with a time that is asked of them, then every other loss, wrapper and weighting on a common base."""
    methods = {
        "grad_ascent + nll": Method("grad_ascent", asked=1.05),
        "simnpo + nll": Method("simnpo", asked=1.05),
        "npo (cached reference) + nll": Method("npo", asked=1.05),
        "npo (cached reference) + nll, LoRA": Method("npo", lora=True, asked=1.05),
        "npo + kl (adapter off), LoRA": Method("npo", "kl", lora=True, asked=1.45),
        "npo + kl (frozen copy)": Method("npo", "kl", asked=1.45),
    }
    covered = {method.forget_loss for method in methods.values()}
    for name in FORGET_LOSSES:
        if name not in covered:
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
    return methods


METHODS = all_methods()


def training_arguments(kind: Callable[..., Any], folder: str, batch: int, **more: Any) -> Any:
    return kind(
        output_dir=folder,
        per_device_train_batch_size=batch,
        max_steps=1,
        report_to="none",
        disable_tqdm=True,
        save_strategy="no",
        use_cpu=not torch.cuda.is_available(),
        train_sampling_strategy="sequential",
        **more,
    )


def steps_of(trainer: Trainer) -> Iterator[None]:
    """Each `next` is one optimizer step, as Trainer's loop does it."""
    trainer.remove_callback(PrinterCallback)  # its lines would cut through the table
    trainer.train()  # one step: wraps the model, makes the optimizer, computes cached references
    model, optimizer = trainer.model_wrapped, trainer.optimizer
    loader = trainer.get_train_dataloader()
    while True:
        batches = iter(loader)
        for _ in range(len(loader)):
            (inputs,), count = trainer.get_batch_samples(batches, 1, trainer.args.device)
            trainer.training_step(model, inputs, count)
            trainer.accelerator.clip_grad_norm_(model.parameters(), trainer.args.max_grad_norm)
            trainer.callback_handler.on_pre_optimizer_step(trainer.args, trainer.state, trainer.control)
            optimizer.step()
            model.zero_grad()
            trainer.callback_handler.on_step_end(trainer.args, trainer.state, trainer.control)
            yield


def build_pair(args: argparse.Namespace, method: str, folder: str) -> tuple[Trainer, Trainer]:
    """The unlearning trainer, and plain Trainer on the very rows of its batches."""
    chosen, count = METHODS[method], args.batch * 8
    tokenizer = make_tokenizer(args.vocabulary)
    ours = UnlearningTrainer(
        model=make_model(args, lora=False),
        args=training_arguments(
            UnlearningConfig,
            folder,
            args.batch,
            forget_loss=chosen.forget_loss,
            retain_loss=chosen.retain_loss,
            reference_cache_dir=folder,
            **chosen.arguments,
        ),
        train_dataset={"forget": make_rows(args, count, 1), "retain": make_rows(args, count, 2)},
        processing_class=tokenizer,
        peft_config=lora_config() if chosen.lora else None,
    )
    flat = []
    for start in range(0, count, args.batch):
        flat += [row for _, _, row in in_role_order([ours.train_dataset[i] for i in range(start, start + args.batch)])]
    rows = [{"input_ids": row["input_ids"], "labels": row["labels"]} for row in flat]
    plain = Trainer(
        model=make_model(args, chosen.lora),
        args=training_arguments(TrainingArguments, folder, len(rows) * args.batch // count),
        train_dataset=datasets.Dataset.from_list(rows),
        data_collator=transformers.DataCollatorForSeq2Seq(tokenizer),
    )
    return ours, plain


def timed(step: Iterator[None]) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    next(step)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - wall, time.process_time() - cpu


def measure(args: argparse.Namespace, method: str) -> dict[str, Any]:
    """Medians of both, and the median of the ratios pair by pair."""
    with tempfile.TemporaryDirectory() as folder:
        ours, plain = (steps_of(trainer) for trainer in build_pair(args, method, folder))
        for _ in range(args.warmup):
            timed(ours), timed(plain)
        pairs = []
        for turn in range(args.steps):
            # The one that goes first changes, so that neither always finds the caches warm.
            first, second = (ours, plain) if turn % 2 else (plain, ours)
            times = {id(first): timed(first), id(second): timed(second)}
            pairs.append((times[id(ours)], times[id(plain)]))
    figures: dict[str, Any] = {"method": method, "asked": METHODS[method].asked, "pairs": len(pairs)}
    for i, clock in enumerate(("wall", "cpu")):
        figures[f"{clock}_ms"] = 1000 * statistics.median(a[i] for a, _ in pairs)
        figures[f"plain_{clock}_ms"] = 1000 * statistics.median(b[i] for _, b in pairs)
        figures[f"{clock}_ratio"] = statistics.median(a[i] / b[i] for a, b in pairs)
    return figures


def peak_memory(args: argparse.Namespace, method: str) -> dict[str, float]:
    """Megabytes that the first steps of both trainers take above what was there before them."""
    context = multiprocessing.get_context("spawn" if torch.cuda.is_available() else "fork")
    figures = {}
    for place, name in enumerate(("memory_mb", "plain_memory_mb")):
        with context.Pool(1) as pool:
            figures[name] = pool.apply(_memory_of_steps, (args, method, place))
    return figures | {"memory_ratio": figures["memory_mb"] / figures["plain_memory_mb"]}


def _memory_of_steps(args: argparse.Namespace, method: str, place: int) -> float:
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        trainer = build_pair(args, method, folder)[place]
        before = torch.cuda.memory_allocated() / 2**20 if torch.cuda.is_available() else _resident_mb()
        steps = steps_of(trainer)
        for _ in range(3):
            next(steps)
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20 - before
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before


def _resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return pages * resource.getpagesize() / 2**20


def print_profile(args: argparse.Namespace, method: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name, trainer in zip(("ours", "plain"), build_pair(args, method, folder), strict=True):
            steps = steps_of(trainer)
            for _ in range(args.warmup):
                next(steps)
            with torch.profiler.profile() as profile:
                for _ in range(5):
                    next(steps)
            print(f"{name}: {method}\n{profile.key_averages().table(sort_by='self_cpu_time_total', row_limit=15)}")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=list(METHODS), metavar="METHOD")
    parser.add_argument("--steps", type=int, default=20, help="counted pairs of steps a method")
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--batch", type=int, default=8, help="forget rows a step; as many retain rows")
    parser.add_argument("--vocabulary", type=int, default=8192)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--shortest", type=int, default=16)
    parser.add_argument("--longest", type=int, default=128)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--profile", choices=list(METHODS), metavar="METHOD", help="print a profile and no times")
    parser.add_argument("--output", type=Path, help="JSON file for the figures")
    return parser.parse_args()


def write(args: argparse.Namespace, results: list[dict[str, Any]]) -> None:
    settings = {key: value for key, value in vars(args).items() if key not in ("output", "profile", "methods")}
    machine = {"processor": platform.processor() or platform.machine(), "gpu": torch.cuda.is_available()}
    versions = {module.__name__: module.__version__ for module in (torch, transformers, peft)}
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(
        json.dumps({"settings": settings, "machine": machine, "versions": versions, "results": results}, indent=2)
    )


def main() -> None:
    args = parse_args()
    torch.set_num_threads(args.threads)
    datasets.disable_progress_bars()
    if args.profile:
        print_profile(args, args.profile)
        return
    print(f"{'method':44} {'ms':>8} {'plain':>8} {'ratio':>7} {'cpu ratio':>9} {'asked':>6} {'MB':>7} {'plain':>7}")
    # Memory first: a forked process begins with what its parent has, and the parent has run nothing yet.
    memory = {method: peak_memory(args, method) for method in args.methods}
    results = []
    for method in args.methods:
        row = memory[method] | measure(args, method)
        results.append(row)
        if args.output:  # after every method, so that a run that is cut short keeps what it has
            write(args, results)
        print(
            f"{method:44} {row['wall_ms']:8.1f} {row['plain_wall_ms']:8.1f} {row['wall_ratio']:7.3f} "
            f"{row['cpu_ratio']:9.3f} {row['asked'] or '':>6} {row['memory_mb']:7.0f} {row['plain_memory_mb']:7.0f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
