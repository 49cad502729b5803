"""Starts of startup.py, one after another in a process of their own: a trainer, its first step, its record."""

import argparse
import contextlib
import json
import re
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest import mock

import datasets
import torch
import transformers
from transformers import PrinterCallback, ProgressCallback, Trainer, TrainerCallback, TrainingArguments

from benchmarks.common.synthetic import Sizes, make_model, make_tokenizer
from benchmarks.cost.trainer_pairs import training_arguments
from hf_unlearn import UnlearningConfig, UnlearningTrainer
from hf_unlearn.training.hooks import before_training

PLAIN = "plain Trainer"
# By name, the arguments of a run; the first two read no reference.
RUNS: dict[str, dict[str, Any]] = {
    "simnpo + nll": {"forget_loss": "simnpo"},
    "grad_ascent + nll": {"forget_loss": "grad_ascent"},
    "npo (cached reference) + nll": {"forget_loss": "npo"},
    "npo (cached reference) + nll, by length": {
        "forget_loss": "npo",
        "train_sampling_strategy": "group_by_length",
    },
}

Phases = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Starts:
    """What a process does.

    Attributes:
        runs: names of `RUNS`, or `PLAIN` for plain Trainer on the rows of both sets.
        rows: folder with the tokenised sets `forget` and `retain`, as `save_to_disk` writes them.
        sizes: of model and batch.
        eval_batch: rows of a forward of the reference pass.
    """

    runs: list[str]
    rows: str
    sizes: Sizes
    eval_batch: int


class Clock(TrainerCallback):
    """CPU seconds and peak memory of this process, at the marks that are set and at the end of the first step."""

    def __init__(self) -> None:
        self._marks: dict[str, tuple[float, float]] = {}
        self._reference = 0.0

    def mark(self, name: str) -> None:
        """The end of a phase, and the start of the next one."""
        if not self._marks:  # from here on
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        self._marks[name] = (time.process_time(), _resident("VmHWM" if self._marks else "VmRSS"))

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        """There is one step."""
        self.mark("first step")

    @contextlib.contextmanager
    def reference_apart(self) -> Iterator[None]:
        """Count the pass of the reference apart, in a run within."""
        original = before_training.precompute

        def counted(*args: Any) -> None:
            begun = time.process_time()
            original(*args)
            self._reference += time.process_time() - begun

        with mock.patch.object(before_training, "precompute", counted):
            yield

    def phases(self) -> Phases:
        """CPU seconds of each phase, and the peak until its end above that before the first, MiB.

        "prepare" is the trainer's constructor, "first step" all from there to the end of the step but "reference",
        "start-up" both of them together, "record" what is written in the end.
        """
        marks = list(self._marks.items())
        found = {
            name: {"cpu_s": at - before, "peak_above_mib": peak - marks[0][1][1]}
            for (_, (before, _)), (name, (at, peak)) in pairwise(marks)
        }
        found.pop("last step", None)
        found["first step"]["cpu_s"] -= self._reference
        found["reference"] = {"cpu_s": self._reference, "peak_above_mib": found["first step"]["peak_above_mib"]}
        found["start-up"] = {"cpu_s": found["prepare"]["cpu_s"] + found["first step"]["cpu_s"]}
        return found


def _resident(name: str) -> float:
    """Resident memory of this process, MiB: as it is (VmRSS), or its peak (VmHWM). Linux tells them."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(re.findall(rf"{name}:\s+(\d+) kB", status)[0]) / 2**10


def run(name: str, starts: Starts, folder: str, clock: Clock) -> None:
    """One run of a single step."""
    sets = {name: datasets.load_from_disk(str(Path(starts.rows, name))) for name in ("forget", "retain")}
    model, tokenizer = make_model(starts.sizes, lora=False), make_tokenizer(starts.sizes.vocabulary)
    batch = starts.sizes.batch
    trainer: Trainer
    if name == PLAIN:
        args = training_arguments(TrainingArguments, folder, 2 * batch)
        rows = datasets.concatenate_datasets(list(sets.values()))
        collator = transformers.DataCollatorForSeq2Seq(tokenizer)
        clock.mark("start")
        trainer = Trainer(model, args, collator, rows, callbacks=[clock])
    else:
        more = {"reference_cache_dir": folder, "per_device_eval_batch_size": starts.eval_batch} | RUNS[name]
        args = training_arguments(UnlearningConfig, folder, batch, **more)
        clock.mark("start")
        trainer = UnlearningTrainer(model, args, train_dataset=sets, processing_class=tokenizer, callbacks=[clock])
    clock.mark("prepare")
    # Their lines would cut through the table.
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    trainer.train()
    if isinstance(trainer, UnlearningTrainer):
        clock.mark("last step")
        trainer.write_card()
        clock.mark("record")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("starts", help="JSON of Starts")
    parser.add_argument("output", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    datasets.disable_progress_bars()
    fields = json.loads(args.starts)
    starts = Starts(**fields | {"sizes": Sizes(**fields["sizes"])})
    found = []
    for name in starts.runs:
        clock = Clock()
        with tempfile.TemporaryDirectory() as folder, clock.reference_apart():
            run(name, starts, folder, clock)
        found.append(clock.phases())
    args.output.write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
