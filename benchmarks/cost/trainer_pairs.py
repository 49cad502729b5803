"""Runs UnlearningTrainer and plain Trainer on the same rows in the same batches, in turns, step by step."""

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import datasets
import torch
import transformers
from transformers import PrinterCallback, ProgressCallback, Trainer, TrainingArguments

from benchmarks.common.synthetic import Sizes, lora_config, make_model, make_rows, make_tokenizer
from hf_unlearn import UnlearningConfig, UnlearningTrainer
from hf_unlearn.data.collator import in_role_order

# Batches a pass; their rows are those of one epoch, over and over.
BATCHES = 8


@dataclass(frozen=True)
class Method:
    """What is compared with plain Trainer, or with another method, and the ratio of step times asked of it, if any."""

    forget_loss: str
    retain_loss: str = "nll"
    lora: bool = False
    asked: float | None = None
    arguments: dict[str, Any] = field(default_factory=dict)
    beside: "Method | None" = None  # on the same forget and retain rows, in place of plain Trainer


def training_arguments(kind: Callable[..., Any], folder: str, batch: int, **more: Any) -> Any:
    common = {
        "output_dir": folder,
        "per_device_train_batch_size": batch,
        "max_steps": 1,
        "report_to": "none",
        "disable_tqdm": True,
        "save_strategy": "no",
        "use_cpu": not torch.cuda.is_available(),
        "train_sampling_strategy": "sequential",
    }
    return kind(**common | more)


def steps_of(trainer: Trainer) -> Iterator[None]:
    """Each `next` is one optimizer step, as Trainer's loop does it."""
    # Their lines would cut through the table.
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    trainer.train()  # one step: wraps the model, makes the optimizer, computes cached references
    model, optimizer = trainer.model_wrapped, trainer.optimizer
    loader = trainer.get_train_dataloader()
    while True:
        # Never taken to its end, the loader stays in the first epoch: in a later one rows meet in another order.
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


def unlearning_trainer(
    method: Method, sizes: Sizes, folder: str, model: Any, *, count: int, **arguments: Any
) -> UnlearningTrainer:
    """The trainer of a method on `count` forget and as many retain and holdout rows of those sizes."""
    sets = {name: make_rows(sizes, count, seed) for seed, name in enumerate(("forget", "retain", "holdout"), 1)}
    return UnlearningTrainer(
        model=model,
        args=training_arguments(
            UnlearningConfig,
            folder,
            sizes.batch,
            forget_loss=method.forget_loss,
            retain_loss=method.retain_loss,
            reference_cache_dir=folder,
            **method.arguments | arguments,
        ),
        train_dataset=sets,
        processing_class=make_tokenizer(sizes.vocabulary),
        peft_config=lora_config() if method.lora else None,
    )


def batches_of(trainer: UnlearningTrainer, batch: int) -> list[list[dict[str, Any]]]:
    """The rows of each batch of the first epoch, as they are trained on: `input_ids` and `labels`."""
    paired = trainer.train_dataset
    batches = []
    for start in range(0, len(paired), batch):
        rows = in_role_order([paired[i] for i in range(start, min(start + batch, len(paired)))])
        batches.append([{"input_ids": row["input_ids"], "labels": row["labels"]} for _, _, row in rows])
    return batches


def plain_trainer(
    model: Any, batches: list[list[dict[str, Any]]], tokenizer: Any, folder: str, **more: Any
) -> Trainer:
    """Plain Trainer on the same batches."""
    return Trainer(
        model=model,
        args=training_arguments(TrainingArguments, folder, len(batches[0]), **more),
        train_dataset=datasets.Dataset.from_list([row for batch in batches for row in batch]),
        data_collator=transformers.DataCollatorForSeq2Seq(tokenizer),
    )


def build_pair(method: Method, sizes: Sizes, folder: str, processes: int = 1) -> tuple[Trainer, Trainer]:
    """The unlearning trainer, and plain Trainer on the very rows of its batches, or the trainer of another method."""
    count = sizes.batch * BATCHES * processes
    ours = unlearning_trainer(method, sizes, folder, make_model(sizes, lora=False), count=count)
    if method.beside is not None:
        other = make_model(sizes, lora=False)
        return ours, unlearning_trainer(method.beside, sizes, f"{folder}/beside", other, count=count)
    batches = batches_of(ours, sizes.batch)
    plain = plain_trainer(make_model(sizes, method.lora), batches, ours.processing_class, folder)
    return ours, plain


def timed(step: Iterator[None]) -> tuple[float, float]:
    """Wall and CPU seconds of one step of this process."""
    wall, cpu = time.perf_counter(), time.process_time()
    next(step)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - wall, time.process_time() - cpu


def paired_times(
    ours: Iterator[None], plain: Iterator[None], warmup: int, pairs: int
) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    """(wall, CPU) seconds of both, pair by pair."""
    for _ in range(warmup):
        timed(ours), timed(plain)
    measured = []
    for turn in range(pairs):
        # The one that goes first changes, so that neither always finds the caches warm.
        first, second = (ours, plain) if turn % 2 else (plain, ours)
        times = {id(first): timed(first), id(second): timed(second)}
        measured.append((times[id(ours)], times[id(plain)]))
    return measured


def time_figures(pairs: list[tuple[tuple[float, float], tuple[float, float]]]) -> dict[str, float]:
    """Medians of both in milliseconds, and the median of the ratios pair by pair."""
    figures: dict[str, float] = {"pairs": len(pairs)}
    for i, clock in enumerate(("wall", "cpu")):
        figures[f"{clock}_ms"] = 1000 * statistics.median(a[i] for a, _ in pairs)
        figures[f"plain_{clock}_ms"] = 1000 * statistics.median(b[i] for _, b in pairs)
        figures[f"{clock}_ratio"] = statistics.median(a[i] / b[i] for a, b in pairs)
    return figures
