"""Every method's recipe on the lab, with and without the row bound: what is forgotten, kept and relearnt. No tuning.

    python benchmarks/methods.py --output benchmarks/results/methods_lab.json

Each YAML file of `--recipes` is run as `examples/harmful.py --config FILE` would run it, once for every value of
`--bounds` and `--seeds`, and measured beside the model before unlearning and the oracle (retrained without the forget
rows). The figures are those of `hf_unlearn.evaluation.compare_on`, and

- probability: mean over rows of exp(-nll), nll per answer token, on the forget rows that relearning does not use;
- relearnt probability: the same after full-parameter fine-tuning (AdamW at a constant rate, no weight decay, an
  adapter merged before) on the first `--relearn_rows` forget rows. What comes back unseen was hidden, not forgotten;
- CPU seconds of `train()`, references and bounds measured before the first step included.

A run that the output file holds already, with the same recipe and settings, is not repeated. The chart is drawn beside
the JSON file and needs matplotlib (the extra `report`).
"""

import argparse
import importlib.util
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import datasets
import torch
import yaml
from peft import PeftModel
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, DataCollatorForSeq2Seq, PrinterCallback, ProgressCallback
from trl import ModelConfig, TrlParser, get_peft_config

from hf_unlearn import UnlearningConfig, UnlearningTrainer
from hf_unlearn.errors import input_error
from hf_unlearn.evaluation import Comparison, compare_on

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"

# figure -> (heading, how it is written)
COLUMNS: dict[str, tuple[str, str]] = {
    "harmful_rate": ("harmful", "{:.1%}"),
    "in_scope_harmful_rate": ("reworded", "{:.1%}"),
    "forget_nll": ("forget NLL", "{:.3f}"),
    "retain_nll": ("retain NLL", "{:.3f}"),
    "retain_accuracy": ("retain right", "{:.1%}"),
    "answer_perplexity": ("perplexity", "{:.4g}"),
    "broken_rate": ("broken", "{:.1%}"),
    "probability": ("probability", "{:.3f}"),
    "relearnt_probability": ("relearnt", "{:.3f}"),
    "train_cpu_seconds": ("CPU s", "{:.1f}"),
}


@dataclass(frozen=True)
class Run:
    """One training run: a recipe, a row bound and a seed."""

    path: Path
    bound: str
    seed: int
    epochs: float | None

    def key(self) -> dict[str, Any]:
        """What makes it this run: the recipe's arguments with what the benchmark puts in their place."""
        arguments = yaml.safe_load(self.path.read_text(encoding="utf-8"))
        arguments |= {"forget_nll_bound": self.bound, "seed": self.seed}
        if self.epochs is not None:
            arguments["num_train_epochs"] = self.epochs
        return {"recipe": self.path.stem, "bound": self.bound, "seed": self.seed, "arguments": arguments}


def load_example() -> ModuleType:
    """examples/harmful.py as a module: the lab as a task, and how a recipe is read."""
    spec = importlib.util.spec_from_file_location("example_harmful", EXAMPLES / "harmful.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their annotations up there
    spec.loader.exec_module(module)
    return module


class Bench:
    """What all runs share: the example, its task on the lab, and how relearning is done."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.example = load_example()
        self.task = self.example.lab_task()
        self.tokenizer = AutoTokenizer.from_pretrained(self.task.model)
        self.relearn_rows = options.relearn_rows
        self.relearning = {name: getattr(options, f"relearn_{name}") for name in ("steps", "batch", "rate")}

    def trainer(self, run: Run, folder: str) -> tuple[UnlearningTrainer, Comparison]:
        """The trainer of a run as examples/harmful.py makes it, writing into a folder, and what it is measured on."""
        places = ["--output_dir", folder, "--reference_cache_dir", folder]
        more = [] if run.epochs is None else ["--num_train_epochs", str(run.epochs)]
        parser = TrlParser((self.example.ScriptArguments, UnlearningConfig, ModelConfig))
        script, args, model_config = parser.parse_args_and_config(
            ["--config", str(run.path), "--forget_nll_bound", run.bound, "--seed", str(run.seed), *places, *more]
        )
        trainer = UnlearningTrainer(
            model=self.task.model,
            args=args,
            train_dataset=self.task.sets,
            processing_class=self.tokenizer,
            peft_config=get_peft_config(model_config),
        )
        for callback in (PrinterCallback, ProgressCallback):  # their lines would cut through the table
            trainer.remove_callback(callback)
        return trainer, self.example.make_comparison(script, args, trainer, self.task)

    def measured(self, model: nn.Module, comparison: Comparison) -> dict[str, float]:
        """The figures of one model, relearning last, as it changes the weights."""
        before = self.load(self.task.model, comparison)
        figures = compare_on(comparison, model, before)
        relearnt_on, others = self.split(comparison.forget)
        figures["probability"] = probability(comparison, model, others)
        if isinstance(model, PeftModel):
            model = model.merge_and_unload()
        relearn(model, relearnt_on, DataCollatorForSeq2Seq(self.tokenizer), **self.relearning)
        figures["relearnt_probability"] = probability(comparison, model, others)
        return figures

    def split(self, forget: datasets.Dataset) -> tuple[datasets.Dataset, datasets.Dataset]:
        """The forget rows that relearning sees, and the others."""
        count = self.relearn_rows
        if not 0 < count < len(forget):
            raise input_error(
                expected=f"--relearn_rows between 1 and {len(forget) - 1}, fewer than the lab's forget rows",
                got=str(count),
                why="what relearning brings back is measured on the other rows",
                fix="pass --relearn_rows 40",
            )
        return forget.select(range(count)), forget.select(range(count, len(forget)))

    def load(self, path: str, comparison: Comparison) -> Any:
        """A saved model in fp32 on the device of the comparison."""
        return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).to(comparison.scorer.accelerator.device)

    def run(self, run: Run) -> dict[str, Any]:
        """Train and measure one run."""
        with tempfile.TemporaryDirectory() as folder:
            trainer, comparison = self.trainer(run, folder)
            started = time.process_time()
            trainer.train()
            seconds = time.process_time() - started
            figures = self.measured(trainer.accelerator.unwrap_model(trainer.model), comparison)
        return {
            **figures,
            "train_cpu_seconds": round(seconds, 1),
            "steps": trainer.state.global_step,
            "stop_reason": trainer.stop_reason,
            "bound_nll": trainer.baseline.bound,
        }

    def landmarks(self, run: Run) -> dict[str, dict[str, float]]:
        """The figures of the model before unlearning and of the oracle; the run's arguments say how rows are read."""
        with tempfile.TemporaryDirectory() as folder:
            _, comparison = self.trainer(run, folder)
            paths = {"before": self.task.model, "oracle": self.task.oracle}
            return {name: self.measured(self.load(path, comparison), comparison) for name, path in paths.items()}


def probability(comparison: Comparison, model: nn.Module, rows: datasets.Dataset) -> float:
    """Mean over rows of exp(-nll), nll the mean over a row's answer tokens."""
    return float((-comparison.scorer(model, rows, "forget rows").nll_per_token()).exp().mean())


def relearn(model: Any, rows: datasets.Dataset, collator: Any, *, steps: int, batch: int, rate: float) -> None:
    """Fine-tune all weights in place on the answers of rows, in an order of its own seed."""
    model.requires_grad_(True).eval()  # a merged base is still frozen; dropout stays off, as in unlearning
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0)
    order = batches(len(rows), batch)
    columns = rows.select_columns(["input_ids", "labels"])
    for _step in range(steps):
        inputs = collator([columns[i] for i in next(order)])
        model(**inputs.to(model.device)).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def batches(count: int, size: int) -> Iterator[list[int]]:
    """Indices of rows, a new order every epoch, the same in every process."""
    generator = torch.Generator().manual_seed(0)
    while True:
        order = torch.randperm(count, generator=generator).tolist()
        yield from (order[start : start + size] for start in range(0, count, size))
