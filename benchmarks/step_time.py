"""Time of an unlearning step against a plain Trainer step on the same concatenated tokens, paired in one run.

    python benchmarks/step_time.py --steps 30 --output benchmarks/results/step_time_cpu.json

Both trainers see the same rows in the same batches, and take turns step by step, so that a machine that slows down
slows both. A step is all that Trainer does for one optimizer step: read and pad the batch, forward, backward,
clipping, optimizer. Ratios are medians over the pairs; CPU time is the process's own, and is what to quote on a shared
machine. `--profile METHOD` prints where the time goes.
"""

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import peft
import torch
import transformers
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, models
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, Trainer, TrainingArguments

from hf_unlearn import UnlearningConfig, UnlearningTrainer

# name -> (forget loss, retain loss, LoRA, the ratio that is asked of it)
METHODS: dict[str, tuple[str, str, bool, float]] = {
    "grad_ascent + nll": ("grad_ascent", "nll", False, 1.05),
    "simnpo + nll": ("simnpo", "nll", False, 1.05),
    "npo (cached reference) + nll": ("npo", "nll", False, 1.05),
    "npo (cached reference) + nll, LoRA": ("npo", "nll", True, 1.05),
    "npo + kl (adapter off), LoRA": ("npo", "kl", True, 1.45),
    "npo + kl (frozen copy)": ("npo", "kl", False, 1.45),
}


def make_tokenizer(vocabulary: int) -> PreTrainedTokenizerFast:
    """Only its padding token and its size are read: the rows are token ids already."""
    words = {"<pad>": 0, "<s>": 1, "</s>": 2} | {f"w{i}": i for i in range(3, vocabulary)}
    core = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", bos_token="<s>", eos_token="</s>")


def make_model(args: argparse.Namespace, lora: bool) -> Any:
    """A Llama with random weights, the same for every call."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=args.vocabulary,
        hidden_size=args.hidden,
        intermediate_size=3 * args.hidden,
        num_hidden_layers=args.layers,
        num_attention_heads=args.hidden // 64,
        num_key_value_heads=args.hidden // 64,
        max_position_embeddings=512,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    model = LlamaForCausalLM(config)
    return get_peft_model(model, lora_config()) if lora else model


def lora_config() -> LoraConfig:
    return LoraConfig(r=16, lora_alpha=32, target_modules="all-linear")


def make_rows(args: argparse.Namespace, count: int, seed: int) -> datasets.Dataset:
    """Random rows of ragged length, a third of each prompt."""
    generator = np.random.default_rng(seed)
    rows = []
    for length in generator.integers(args.shortest, args.longest + 1, count).tolist():
        ids = generator.integers(3, args.vocabulary, length).tolist()
        prompt = length // 3
        rows.append({"input_ids": ids, "labels": [-100] * prompt + ids[prompt:]})
    return datasets.Dataset.from_list(rows)


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
            yield


def build_pair(args: argparse.Namespace, method: str, folder: str) -> tuple[Trainer, Trainer]:
    """The unlearning trainer, and plain Trainer on the very rows of its batches."""
    forget_loss, retain_loss, lora, _ = METHODS[method]
    count = args.batch * 8
    tokenizer = make_tokenizer(args.vocabulary)
    ours = UnlearningTrainer(
        model=make_model(args, lora=False),
        args=training_arguments(
            UnlearningConfig,
            folder,
            args.batch,
            forget_loss=forget_loss,
            retain_loss=retain_loss,
            reference_cache_dir=folder,
        ),
        train_dataset={"forget": make_rows(args, count, 1), "retain": make_rows(args, count, 2)},
        processing_class=tokenizer,
        peft_config=lora_config() if lora else None,
    )
    flat = []
    for start in range(0, count, args.batch):
        items = [ours.train_dataset[i] for i in range(start, start + args.batch)]
        flat += items + [row for item in items for row in item["retain"]]
    rows = [{"input_ids": row["input_ids"], "labels": row["labels"]} for row in flat]
    plain = Trainer(
        model=make_model(args, lora),
        args=training_arguments(TrainingArguments, folder, 2 * args.batch),
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
    figures: dict[str, Any] = {"method": method, "asked": METHODS[method][3], "pairs": len(pairs)}
    for i, clock in enumerate(("wall", "cpu")):
        figures[f"{clock}_ms"] = 1000 * statistics.median(a[i] for a, _ in pairs)
        figures[f"plain_{clock}_ms"] = 1000 * statistics.median(b[i] for _, b in pairs)
        figures[f"{clock}_ratio"] = statistics.median(a[i] / b[i] for a, b in pairs)
    return figures


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


def main() -> None:
    args = parse_args()
    torch.set_num_threads(args.threads)
    if args.profile:
        print_profile(args, args.profile)
        return
    print(f"{'method':38} {'ms':>8} {'plain':>8} {'ratio':>7} {'cpu ratio':>9} {'asked':>6}")
    results = []
    for method in args.methods:
        row = measure(args, method)
        results.append(row)
        print(
            f"{method:38} {row['wall_ms']:8.1f} {row['plain_wall_ms']:8.1f} {row['wall_ratio']:7.3f} "
            f"{row['cpu_ratio']:9.3f} {row['asked']:6.2f}",
            flush=True,
        )
    if args.output:
        settings = {key: value for key, value in vars(args).items() if key not in ("output", "profile", "methods")}
        machine = {"processor": platform.processor() or platform.machine(), "gpu": torch.cuda.is_available()}
        versions = {module.__name__: module.__version__ for module in (torch, transformers, peft)}
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(
            json.dumps({"settings": settings, "machine": machine, "versions": versions, "results": results}, indent=2)
        )


if __name__ == "__main__":
    main()
