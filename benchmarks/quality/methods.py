"""Runs every method's recipe on the lab, with and without the row bound: what is forgotten, kept and relearnt.

    python -m benchmarks.quality.methods --output benchmarks/results/methods_lab.json

Each YAML file of `--recipes` is run as `hf-unlearn train --config FILE` would run it, once for every value of
`--bounds` and `--seeds`, and measured beside the model before unlearning and the oracle (retrained without the forget
rows). The figures are those of the suite `hf_unlearn.evaluation.suites.harmful`, and

- probability: mean over rows of exp(-nll), nll per answer token, on the forget rows that relearning does not use;
- relearnt probability: the same after full-parameter fine-tuning (AdamW at a constant rate, no weight decay, an
  adapter merged before) on 40 forget rows, 8 a step. What comes back unseen was hidden, not forgotten;
- CPU seconds of `train()`, references and bounds measured before the first step included.

A run that the output file holds already, with the same recipe and settings, is not repeated. The chart is drawn beside
the JSON file.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import peft
import torch
import transformers
import yaml
from peft import PeftModel
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback, ProgressCallback
from trl import get_peft_config

from benchmarks.quality.methods_chart import draw
from hf_unlearn import DataCollatorForUnlearning, UnlearningTrainer
from hf_unlearn.errors import input_error
from hf_unlearn.evaluation import Suite, evaluate
from hf_unlearn.lab import load_lab
from hf_unlearn.model.fine_tuning import fine_tune
from hf_unlearn.model.merging import merge
from hf_unlearn.model.score_rows import RowScorer
from hf_unlearn.tasks import make_task, parse_task
from hf_unlearn.tasks.recipe_files import PACKAGED

TASK = "harmful"
RELEARN_ROWS, RELEARN_BATCH = 40, 8  # of the lab's 120 forget rows

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

    @property
    def possible(self) -> bool:
        """Whether its loss takes the bound: one that brings rows to their levels from both sides has none."""
        arguments = yaml.safe_load(self.path.read_text(encoding="utf-8"))
        return self.bound == "none" or "levels" not in arguments or arguments.get("forget_nll_bound") is not None

    def key(self) -> dict[str, Any]:
        """What makes it this run: the recipe's arguments with what the benchmark puts in their place."""
        arguments = yaml.safe_load(self.path.read_text(encoding="utf-8"))
        arguments.pop("task", None)  # the same for all
        arguments |= {"forget_nll_bound": self.bound, "seed": self.seed}
        if self.epochs is not None:
            arguments["num_train_epochs"] = self.epochs
        return {"recipe": self.path.stem, "bound": self.bound, "seed": self.seed, "arguments": arguments}


class Bench:
    """What all runs share: the lab's models, and how relearning is done."""

    def __init__(self, options: argparse.Namespace) -> None:
        lab = load_lab()
        self.before, self.oracle = str(lab.model_path), str(lab.oracle_path)
        self.tokenizer = AutoTokenizer.from_pretrained(self.before)
        self.relearning = {"steps": options.relearn_steps, "batch": RELEARN_BATCH, "rate": options.relearn_rate}

    def trainer(self, run: Run, folder: str) -> tuple[UnlearningTrainer, Suite]:
        """The trainer of a run as its task makes it, writing into a folder, and what it is measured on."""
        places = ["--output_dir", folder, "--reference_cache_dir", folder]
        more = [] if run.epochs is None else ["--num_train_epochs", str(run.epochs)]
        parsed = parse_task(
            TASK, ["--config", str(run.path), "--forget_nll_bound", run.bound, "--seed", str(run.seed), *places, *more]
        )
        task = make_task(TASK, parsed)
        trainer = UnlearningTrainer(
            model=task.model,
            args=parsed.args,
            train_dataset=task.sets,
            processing_class=self.tokenizer,
            peft_config=get_peft_config(parsed.model),
        )
        for callback in (PrinterCallback, ProgressCallback):  # their lines would cut through the table
            trainer.remove_callback(callback)
        return trainer, task.suite()

    def measured(self, model: nn.Module, trainer: UnlearningTrainer, suite: Suite) -> dict[str, float]:
        """The figures of one model, relearning last, as it changes the weights."""
        accelerator, batch_size = trainer.accelerator, trainer.args.per_device_eval_batch_size
        options = {"batch_size": batch_size, "accelerator": accelerator}
        result = evaluate(model, self.tokenizer, suite, fluency_model=self.load(self.before, trainer), **options)
        figures = {name: value for name, value in result.values().items() if name in COLUMNS}
        forget = trainer.train_sets.forget
        relearnt_on, others = forget.select(range(RELEARN_ROWS)), forget.select(range(RELEARN_ROWS, len(forget)))
        scorer = RowScorer(DataCollatorForUnlearning(self.tokenizer.pad_token_id), accelerator, batch_size)
        figures["probability"] = probability(scorer, model, others)
        if isinstance(model, PeftModel):
            model = merge(model)
        model.requires_grad_(True).eval()  # a merged base is still frozen; dropout stays off, as in unlearning
        for _step in fine_tune(model, relearnt_on.to_list(), scorer.collator, **self.relearning):
            pass
        figures["relearnt_probability"] = probability(scorer, model, others)
        return figures

    def load(self, path: str, trainer: UnlearningTrainer) -> Any:
        """A saved model in fp32 on the device of the trainer."""
        return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).to(trainer.accelerator.device)

    def run(self, run: Run) -> dict[str, Any]:
        """Train and measure one run."""
        with tempfile.TemporaryDirectory() as folder:
            trainer, suite = self.trainer(run, folder)
            started = time.process_time()
            trainer.train()
            seconds = time.process_time() - started
            figures = self.measured(trainer.accelerator.unwrap_model(trainer.model), trainer, suite)
        return {
            **figures,
            "train_cpu_seconds": round(seconds, 1),
            "steps": trainer.state.global_step,
            "stop_reason": trainer.stop_reason,
            "holdout_nll": trainer.baseline.holdout_nll,
        }

    def landmarks(self, run: Run) -> dict[str, dict[str, float]]:
        """The figures of the model before unlearning and of the oracle; the run's arguments say how rows are read."""
        with tempfile.TemporaryDirectory() as folder:
            trainer, suite = self.trainer(run, folder)
            paths = {"before": self.before, "oracle": self.oracle}
            return {name: self.measured(self.load(path, trainer), trainer, suite) for name, path in paths.items()}


def probability(scorer: RowScorer, model: nn.Module, rows: datasets.Dataset) -> float:
    """Mean over rows of exp(-nll), nll the mean over a row's answer tokens."""
    return float((-scorer(model, rows, "forget rows").nll_per_token()).exp().mean())


def recipe_files(given: Sequence[Path]) -> list[Path]:
    """The YAML files of `--recipes`, folders opened.

    Raises:
        ValueError: no recipe, or two of one name, by which runs are told apart.
    """
    files = [path for place in given for path in (sorted(place.glob("*.yaml")) if place.is_dir() else [place])]
    names = [path.stem for path in files]
    missing = [path.name for path in files if not path.is_file()]
    if not files or missing or len(set(names)) < len(names):
        raise input_error(
            expected="--recipes to name YAML files of different names, or folders that hold some",
            got=f"no file {missing[0]}" if missing else f"{len(files)} files, {len(set(names))} names",
            why="every file is one line of the table, under its name",
            fix="leave --recipes out for the packaged ones, or name files of them",
        )
    return files


def read_results(path: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """What earlier runs wrote, or an empty frame.

    Raises:
        ValueError: the file was written with other settings or versions, whose figures cannot stand beside new ones.
    """
    if not path.exists():
        return {**settings, "landmarks": {}, "runs": []}
    results = json.loads(path.read_text(encoding="utf-8"))
    different = [name for name, value in settings.items() if results.get(name) != value]
    if different:
        raise input_error(
            expected=f"{path.name} to have been written with the same {different[0]}",
            got=f"{results.get(different[0])} there, {settings[different[0]]} now",
            why="figures of both would stand in one table",
            fix="pass another --output, or delete the file",
        )
    return results


def write_results(path: Path, results: dict[str, Any]) -> None:
    """Write the file anew, whole or not at all: an interrupted benchmark goes on from it."""
    results["runs"].sort(key=lambda run: (run["recipe"], run["bound"], run["seed"]))
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    unfinished.replace(path)


def print_row(name: str, figures: dict[str, Any]) -> None:
    """One line of the table: the figures in the order of its heading."""
    cells = [form.format(figures[column]) if column in figures else "-" for column, (_, form) in COLUMNS.items()]
    print(f"{name:44}" + "".join(f"{cell:>13}" for cell in cells), flush=True)


def measure_all(options: argparse.Namespace) -> None:
    """Measure before, oracle and every run that the output file does not hold yet."""
    files = recipe_files(options.recipes)
    bench = Bench(options)
    settings = {
        "settings": {"lab": load_lab().path.name, "relearn_rows": RELEARN_ROWS, "relearning": bench.relearning},
        "versions": {module.__name__: module.__version__ for module in (torch, transformers, peft)},
    }
    results = read_results(options.output, settings)
    options.output.parent.mkdir(parents=True, exist_ok=True)  # now, rather than after the first run
    seeds, bounds = options.seeds.split(","), options.bounds.split(",")
    # Seed by seed, so that whoever stops early has every recipe.
    runs = [Run(path, bound, int(seed), options.epochs) for seed in seeds for path in files for bound in bounds]
    runs = [run for run in runs if run.possible]
    print(f"{'':44}" + "".join(f"{heading:>13}" for heading, _ in COLUMNS.values()))
    if not results["landmarks"]:
        results["landmarks"] = bench.landmarks(runs[0])
        write_results(options.output, results)
    for name, figures in results["landmarks"].items():
        print_row(name, figures)
    for run in runs:
        key = run.key()
        done = [run for run in results["runs"] if {name: run[name] for name in key} == key]
        if not done:
            done = [{**key, **bench.run(run)}]
            same = ("recipe", "bound", "seed")  # an older version of the recipe gives way
            kept = [run for run in results["runs"] if any(run[name] != key[name] for name in same)]
            results["runs"] = kept + done
            write_results(options.output, results)
        print_row(f"{run.path.stem}, bound {run.bound}, seed {run.seed}", done[0])


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Run every method's recipe on the lab, with the row bound off and calibrated.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--recipes",
        type=Path,
        nargs="+",
        default=[PACKAGED / "methods"],
        help="YAML files, or folders of them",
        metavar="PATH",
    )
    parser.add_argument("--bounds", default="none,holdout", help="values of forget_nll_bound, separated by commas")
    parser.add_argument("--seeds", default="0", help="seeds, separated by commas")
    parser.add_argument("--epochs", type=float, help="in place of every recipe's num_train_epochs")
    parser.add_argument("--relearn_steps", type=int, default=25, help="AdamW steps of relearning")
    parser.add_argument("--relearn_rate", type=float, default=1e-4, help="learning rate of relearning")
    parser.add_argument("--output", type=Path, required=True, help="JSON file, written after every run, and resumed")
    parser.add_argument("--plot_only", action="store_true", help="draw the chart of --output and run nothing")
    return parser.parse_args()


def main() -> None:
    """Measure, then draw."""
    options = parse_arguments()
    if options.plot_only and not options.output.is_file():
        raise input_error(
            expected="--output to name a file of an earlier benchmark, with --plot_only",
            got=f"no file {options.output.name}",
            why="the chart is drawn from it",
            fix="leave out --plot_only to run the benchmark",
        )
    transformers.utils.logging.disable_progress_bar()  # bars would cut through the table
    datasets.disable_progress_bars()
    if not options.plot_only:
        measure_all(options)
    draw(json.loads(options.output.read_text(encoding="utf-8")), options.output.with_suffix(".png"))


if __name__ == "__main__":
    main()
