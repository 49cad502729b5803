"""Deletion requests one after another: what happens to the first when the last is carried out?

    python -m benchmarks.quality.sequence --data TOFU --model tofu-full --oracle tofu-retain90 --output results.json
    python -m benchmarks.quality.sequence --lab --output results.json

On TOFU five requests of 40 rows (two authors each, the first ten of forget10); with `--lab` ten of a person each. A
request is carried out on the weights that the former one left: `unseen_level` with the new rows and, as the ledger
does it, the rows of all former requests, each at its level (`held`). Beside it stand the same without the former rows
(`forgotten alone`), all requests at once, and the oracle, retrained without any of the rows, which is measured and
never used. After every request each request's rows give (with the scorer and figures of `levels.py`):

- nll, and level error: median over its rows of |nll - nll under the oracle|;
- loss AUC: how often one of its rows is likelier than an unseen row (measurement half of the holdout);
- relearnt probability: of the other half of its rows, after 25 AdamW steps (1e-4) on the first half.

And the model as a whole: retain probability and the NLL of unseen rows. `--chart` draws a file of results.
"""

import argparse
import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from benchmarks.common.environment import machine, versions
from benchmarks.quality.sequence_chart import draw
from benchmarks.quality.teacher_forcing import TokenizedRow, auc, pad, scored
from benchmarks.quality.tofu_bound import load, read_tofu
from benchmarks.quality.unlearn_rows import unlearn_rows
from hf_unlearn.data.holdout_split import measurement_rows
from hf_unlearn.data.tokenization import tokenize_rows
from hf_unlearn.lab import load_lab

LEVELS: dict[str, Any] = {
    "forget_loss": {"name": "unseen_level", "token_weight": 1.0},
    "levels": "ngram",
    "forget_nll_bound": None,
    "anchor_loss": "kl",
    "anchor_ratio": 0.5,
    "per_device_train_batch_size": 8,
    "lr_scheduler_type": "warmup_stable_decay",
    "warmup_steps": 5,
    "max_grad_norm": 0.0,
}
TOFU = {"anchor_weight": 0.5, "retain_weight": 5.0, "retain_ratio": 3.0, "forget_weight": 0.25, "learning_rate": 6e-4}
LAB = {"anchor_weight": 1.0, "retain_weight": 3.0, "retain_ratio": 2.0, "forget_weight": 2.0, "learning_rate": 1e-3}
BATCH = 32


@dataclass(frozen=True)
class Sets:
    """The models, and the rows of each request beside those that are kept and those never seen."""

    model: Path
    oracle: Path
    tokenizer: PreTrainedTokenizerBase
    requests: list[list[TokenizedRow]]
    retain: list[TokenizedRow]
    retain_measured: list[TokenizedRow]
    holdout: list[TokenizedRow]


def tofu_sets(options: argparse.Namespace) -> Sets:
    """Five requests of two authors each."""
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    tofu = read_tofu(options.data, tokenizer)
    requests = [tofu.forget[start : start + 40] for start in range(0, 200, 40)]
    holdout = [*tofu.holdout_calibration, *tofu.holdout_measured]
    return Sets(options.model, options.oracle, tokenizer, requests, tofu.retain, tofu.retain_measured, holdout)


def lab_sets() -> Sets:
    """Ten requests of a person each."""
    lab = load_lab(world="people")
    tokenizer = AutoTokenizer.from_pretrained(lab.model_path)

    def rows(name: str) -> list[TokenizedRow]:
        tokens = tokenize_rows(lab.datasets[name], tokenizer, set_name="eval", max_length=256, template=lab.template)
        return [{column: list(row[column]) for column in ("input_ids", "labels")} for row in tokens]

    forget, retain = rows("forget"), rows("retain")
    requests = [forget[start : start + 5] for start in range(0, 50, 5)]
    return Sets(lab.model_path, lab.oracle_path, tokenizer, requests, retain, retain, rows("holdout"))


# way -> which rows are among the forget rows when request i is carried out, as places in all requests; None where
# nothing is done yet
WAYS = {
    "held": lambda i, last: range(i + 1),
    "forgotten alone": lambda i, last: range(i, i + 1),
    "at once": lambda i, last: range(last + 1) if i == last else None,
}


class Course:
    """Carries the requests out on one model, and measures all of them after each."""

    def __init__(self, sets: Sets, recipe: dict[str, Any], options: argparse.Namespace) -> None:
        self.sets, self.recipe, self.options = sets, recipe, options
        self.unseen = measurement_rows(datasets.Dataset.from_list(sets.holdout)).to_list()
        oracle = load(sets.oracle).eval()
        self.oracle_nll = [scored(oracle, rows, BATCH).nll for rows in sets.requests]
        self.oracle = self.figures(oracle)

    def run(self, way: str, seed: int) -> dict[str, Any]:
        """Figures after each request, and what it took."""
        model, last, steps = load(self.sets.model), len(self.sets.requests) - 1, []
        spent = {"tokens": 0.0, "train_cpu_seconds": 0.0}
        for i in range(last + 1):
            places = WAYS[way](i, last)
            if places is None:
                continue
            forget = [row for place in places for row in self.sets.requests[place]]
            # The others' rows are not asked for yet, and are kept no more than any row that is in no set.
            sets = {"forget": forget, "retain": self.sets.retain, "holdout": self.sets.holdout}
            count = self.options.steps_at_once if way == "at once" else self.options.steps
            decay = {"num_decay_steps": round(count * 0.1), "min_lr_ratio": 0.1}
            recipe = self.recipe | {"max_steps": count, "lr_scheduler_kwargs": decay}
            model, took = unlearn_rows(model, sets, self.sets.tokenizer, recipe, seed + i)
            spent = {name: amount + took[name] for name, amount in spent.items()}
            steps.append(self.figures(model) | spent | {"request": i + 1})
            told = "  ".join(f"{one['nll']:.2f} ({one['level_error']:.2f})" for one in steps[-1]["requests"])
            print(
                f"{way}, seed {seed}, request {i + 1}: {told}; retain {steps[-1]['retain_probability']:.3f}",
                flush=True,
            )
        return {"way": way, "seed": seed, "after": steps}

    def figures(self, model: PreTrainedModel) -> dict[str, Any]:
        """Of every request, and of the model as a whole."""
        model.eval()
        unseen = scored(model, self.unseen, BATCH)
        return {
            "requests": [
                self._of_request(model, i, [row.mean() for row in unseen.logps]) for i in range(len(self.oracle_nll))
            ],
            "retain_probability": float(np.exp(-scored(model, self.sets.retain_measured, BATCH).nll).mean()),
            "unseen_nll": float(unseen.nll.mean()),
        }

    def _of_request(self, model: PreTrainedModel, place: int, unseen: Sequence[float]) -> dict[str, float]:
        rows = self.sets.requests[place]
        own = scored(model, rows, BATCH)
        return {
            "nll": float(own.nll.mean()),
            "level_error": float(np.median(np.abs(own.nll - self.oracle_nll[place]))),
            "loss_auc": auc([row.mean() for row in own.logps], unseen),
            "relearnt_probability": self._relearnt(model, rows),
        }

    def _relearnt(self, model: PreTrainedModel, rows: list[TokenizedRow]) -> float:
        """Of the other half of a request's rows, after a short fine-tuning of a copy on the first half."""
        model, half = copy.deepcopy(model).requires_grad_(True), len(rows) // 2
        optimizer = torch.optim.AdamW(model.parameters(), lr=self.options.relearn_rate, weight_decay=0.0)
        for step in range(25):
            ids, labels, mask = pad([rows[i] for i in np.arange(step * 8, step * 8 + 8) % half], model.device)
            model(input_ids=ids, attention_mask=mask, labels=labels, use_cache=False).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        return float(np.exp(-scored(model, rows[half:], BATCH).nll).mean())


def main() -> None:
    """Measure what is not measured yet, or draw what was measured."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("--lab", action="store_true", help="the lab's people, for which nothing else is needed")
    parser.add_argument("--model", type=Path, help="folder of the model that has learnt all of TOFU")
    parser.add_argument("--oracle", type=Path, help="folder of the model retrained without forget10")
    parser.add_argument("--data", type=Path, help="folder of TOFU's files")
    parser.add_argument("--output", type=Path, required=True, help="JSON file; runs that it holds are not repeated")
    parser.add_argument("--steps", type=int, default=150, help="of each request")
    parser.add_argument("--steps_at_once", type=int, default=385, help="of all requests at once")
    parser.add_argument("--ways", default=",".join(WAYS), help="separated by commas")
    parser.add_argument("--seeds", default="0", help="separated by commas")
    parser.add_argument("--relearn_rate", type=float, default=1e-4)
    parser.add_argument("--chart", type=Path, help="PNG file of what the output holds; nothing is run then")
    options = parser.parse_args()
    settings = {name: getattr(options, name) for name in ("lab", "steps", "steps_at_once", "relearn_rate")}
    results: dict[str, Any] = {"settings": settings, "runs": []}
    if options.output.is_file():
        earlier = json.loads(options.output.read_text(encoding="utf-8"))
        results = earlier if earlier["settings"] == settings or options.chart else results
    if options.chart is not None:
        draw(results, options.chart)
        return
    course = (
        Course(lab_sets(), LEVELS | LAB, options)
        if options.lab
        else Course(tofu_sets(options), LEVELS | TOFU, options)
    )
    before = course.figures(load(course.sets.model))
    results |= {"oracle": course.oracle, "before": before, "machine": machine(cuda=False), "versions": versions()}
    for way in options.ways.split(","):
        for seed in map(int, options.seeds.split(",")):
            if not any((run["way"], run["seed"]) == (way, seed) for run in results["runs"]):
                results["runs"].append(course.run(way, seed))
                options.output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
