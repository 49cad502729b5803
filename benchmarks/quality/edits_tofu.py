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
from accelerate import Accelerator
from transformers import PreTrainedModel

from benchmarks.quality.edits_chart import draw
from benchmarks.quality.edits_recipes import RECIPES
from benchmarks.quality.levels import Bench
from benchmarks.quality.teacher_forcing import scored
from benchmarks.quality.tofu_bound import load
from benchmarks.quality.tofu_runs import bench_parser, opened, parsed, run_all
from hf_unlearn.edits import apply
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
        original, notes, figures, held = load(self.options.model).eval(), [], {}, None
        for place, phase in enumerate(phases):
            ((kind, spec),) = phase.items()
            if kind == "train":
                reference = None if place == 0 else held or original
                model, took = self.bench.trained(spec, seed, model, reference)
                figures = {}
                cost = took["tokens"], took["train_cpu_seconds"]
            elif kind == "suppress":
                report = suppress(spec, model, self.data, **self._shared(seed))
                if place == len(phases) - 1:
                    figures = self._suppressed(model, report)
                else:  # a training distils it
                    model, held = load(self.options.model), model
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


def main() -> None:
    """Measure what is not measured yet, or draw what was measured."""
    parser = bench_parser(__doc__, RECIPES, "0")
    parser.add_argument("--checkpoint", type=Path, help="folder of a model from before it learnt the forget rows")
    parser.add_argument("--losses", type=Path, help="JSON file of benchmarks.quality.levels, for the chart")
    parser.add_argument("--chart", type=Path, help="PNG file; nothing is run then")
    options = parsed(parser, RECIPES)
    results = opened(options)
    if options.chart is not None:
        losses = json.loads(options.losses.read_text(encoding="utf-8"))["runs"] if options.losses else []
        draw(results, losses, options.chart)
        return
    bench = EditBench(options)

    def run(name: str, seed: int) -> dict[str, Any]:
        return bench.run(RECIPES[name], seed)

    run_all(options, results, bench.bench.figures, lambda name: {"phases": RECIPES[name]}, run)


if __name__ == "__main__":
    main()
