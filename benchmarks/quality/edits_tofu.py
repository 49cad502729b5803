"""Edits, suppressions and RL on TOFU, beside the losses: forgetting, membership, utility, relearning and cost.

    python -m benchmarks.quality.edits_tofu --model MODEL --oracle ORACLE --data TOFU --output OUT.json

The figures are those of `benchmarks.quality.levels`, of the same rows, so that the rows of its table stand beside
these; the oracle is measured and never used. A recipe is a list of phases: an edit, a suppression or a training.
Suppressions are measured as they answer; their relearnt probability and `restored_probability` are of the weights,
which still know. Cost: CPU seconds of this process and tokens read, measuring within an edit included.

A run that the output file holds already, with the same phases, is not repeated. `--chart` draws the Pareto front of
what the file holds, with the losses of `--losses` beside it.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from accelerate import Accelerator
from transformers import PreTrainedModel

from benchmarks.common.environment import machine, versions
from benchmarks.quality.edits_chart import draw
from benchmarks.quality.edits_recipes import RECIPES
from benchmarks.quality.levels import Bench, print_row
from benchmarks.quality.teacher_forcing import scored
from benchmarks.quality.tofu_bound import load
from hf_unlearn.edits import apply
from hf_unlearn.errors import require_choice
from hf_unlearn.suppression import Suppressed, suppress


class EditBench:
    """Carries out recipes on the model before unlearning."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.bench = options, Bench(options)
        tofu = self.bench.tofu
        sets = {"forget": tofu.forget, "retain": tofu.retain, "holdout": self.bench.holdout}
        self.data = {name: datasets.Dataset.from_list(rows) for name, rows in sets.items()}

    def run(self, phases: list[dict[str, Any]], seed: int) -> dict[str, Any]:
        """The figures after all phases, and what they took."""
        model, spent = load(self.options.model).eval(), {"tokens": 0.0, "train_cpu_seconds": 0.0}
        original, notes, figures = load(self.options.model).eval(), [], {}
        for place, phase in enumerate(phases):
            ((kind, spec),) = phase.items()
            if kind == "train":
                model, took = self.bench.trained(spec, seed, None if place == 0 else model)
                cost = took["tokens"], took["train_cpu_seconds"]
            elif kind == "suppress":
                report = suppress(spec, model, self.data, **self._shared(seed))
                figures = self._suppressed(model, report)
                cost = report.tokens, report.cpu_seconds
            else:
                report = apply(
                    spec,
                    model,
                    self.data,
                    before=None if place == 0 else original,
                    checkpoint=self.options.checkpoint and str(self.options.checkpoint),
                    **self._shared(seed),
                )
                model, cost = report.model, (report.tokens, report.cpu_seconds)
                notes += [{"setting": one.setting, "forget_nll": one.forget_nll} for one in report.tried if one.chosen]
            spent = {"tokens": spent["tokens"] + cost[0], "train_cpu_seconds": spent["train_cpu_seconds"] + cost[1]}
        figures = figures or self.bench.figures(model)
        figures |= spent | {"token_share": spent["tokens"] / self.bench.retraining_tokens}
        return figures | {"chosen": notes}

    def _suppressed(self, model: PreTrainedModel, report: Suppressed) -> dict[str, Any]:
        """The figures of a suppressed model; what a training brings back is that of its weights."""
        figures: dict[str, Any] = self.bench.figures(model, relearn=False)
        report.handle.remove()
        rows = scored(model, self.bench.tofu.forget, self.options.measure_batch_size)
        figures["relearnt_probability"] = self.bench.relearnt_probability(model)
        return figures | {"restored_probability": float(np.exp(-rows.nll).mean()), "slower": report.slower}

    def _shared(self, seed: int) -> dict[str, Any]:
        return {"tokenizer": self.bench.tokenizer, "seed": seed, "accelerator": Accelerator(cpu=True)}


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="folder of the model that has learnt all of TOFU")
    parser.add_argument("--oracle", type=Path, required=True, help="folder of the model retrained without forget10")
    parser.add_argument("--data", type=Path, required=True, help="folder of TOFU's files")
    parser.add_argument("--output", type=Path, required=True, help="JSON file; runs that it holds are not repeated")
    parser.add_argument("--checkpoint", type=Path, help="folder of a model from before it learnt the forget rows")
    parser.add_argument("--split", default="forget10", choices=("forget01", "forget05", "forget10"))
    parser.add_argument("--recipes", default=";".join(RECIPES), help="names, separated by semicolons")
    parser.add_argument("--seeds", default="0", help="separated by commas")
    parser.add_argument("--losses", type=Path, help="JSON file of benchmarks.quality.levels, for the chart")
    parser.add_argument("--chart", type=Path, help="PNG file; nothing is run then")
    parser.add_argument("--relearn_steps", type=int, default=25)
    parser.add_argument("--relearn_learning_rate", type=float, default=1e-4)
    parser.add_argument("--measure_batch_size", type=int, default=32, help="rows a forward of the measurement")
    options = parser.parse_args()
    options.recipes, options.save_models = options.recipes.split(";"), None
    for name in options.recipes:
        require_choice("--recipes", name, RECIPES)
    return options


def main() -> None:
    """Measure every recipe with every seed, or draw what was measured."""
    options = parse_arguments()
    options.output.parent.mkdir(parents=True, exist_ok=True)
    named = ("split", "relearn_steps", "relearn_learning_rate", "measure_batch_size")
    settings = {name: getattr(options, name) for name in named} | {
        name: getattr(options, name).name for name in ("model", "oracle", "data")
    }
    results: dict[str, Any] = {"settings": settings, "runs": []}
    if options.output.is_file():
        earlier = json.loads(options.output.read_text(encoding="utf-8"))
        results = earlier if earlier["settings"] == settings else results
    if options.chart is not None:
        losses = json.loads(options.losses.read_text(encoding="utf-8"))["runs"] if options.losses else []
        draw(results, losses, options.chart)
        return
    results |= {"machine": machine(cuda=torch.cuda.is_available()), "versions": versions()}
    bench = EditBench(options)
    for name, place in (("before", options.model), ("oracle", options.oracle)):
        if name not in results:
            results[name] = bench.bench.figures(load(place))
        print_row(name, results[name])
    for name in options.recipes:
        for seed in map(int, options.seeds.split(",")):
            run = {"recipe": name, "seed": seed, "phases": RECIPES[name]}
            done = next((made for made in results["runs"] if run.items() <= made.items()), None)
            if done is None:
                done = run | bench.run(RECIPES[name], seed)
                results["runs"] = [made for made in results["runs"] if (made["recipe"], made["seed"]) != (name, seed)]
                results["runs"].append(done)
                # Written after every run, so that an interrupted measurement keeps what it has.
                options.output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
            print_row(f"{name}, seed {seed}", done)


if __name__ == "__main__":
    main()
