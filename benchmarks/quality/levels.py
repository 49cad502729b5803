"""Calibrated unlearning on TOFU: does it end where a model that never saw the rows is, in three seeds?

    python -m benchmarks.quality.levels --model tofu-full --oracle tofu-retain90 --data tofu --output results.json

The models, files and rows are those of `tofu_bound.py`, and so is the scorer, which shares no code with the package.
The oracle is measured and never used. The trainer is given all holdout rows and calibrates on one half of them by
itself; everything below is measured on the other half (`hf_unlearn.data.holdout_split.measurement_rows`), and the
retain rows on retain_perturbed. The figures, beside those of `tofu_bound.py`:

- extraction strength: 1 - the least share of an answer that must be given for the rest to follow greedily;
- loss AUC, min-k AUC (k = 40%): how often a forget row is likelier than an unseen one (their lowest 40% of tokens);
- level error: median over forget rows of |nll - nll under the oracle|;
- relearnt probability: mean answer probability of the other forget rows after 25 AdamW steps (1e-4, batch 8, all
  weights; an adapter is merged before) on the first 40 of them, two authors (on a quarter of a smaller split);
- tokens: all tokens of all rows that training read, prompts included, without padding, and their share of those of
  retraining (16 epochs of retain90, real_authors and world_facts).

A run that the output file holds already, with the same arguments, is not repeated.
"""

import argparse
import copy
import re
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from scipy.stats import ks_2samp
from transformers import AutoTokenizer, PreTrainedModel

from benchmarks.quality.teacher_forcing import auc, extraction_strength, lowest, pad, scored
from benchmarks.quality.tofu_bound import Tofu, load, read_json_lines, read_tofu, tokenize
from benchmarks.quality.tofu_runs import bench_parser, opened, parsed, run_all
from benchmarks.quality.unlearn_rows import unlearn_rows
from hf_unlearn.data.holdout_split import measurement_rows

_LEVELS: dict[str, Any] = {
    "forget_loss": {"name": "unseen_level", "token_weight": 1.0},
    "levels": "ngram",
    "forget_nll_bound": None,
    "anchor_loss": "kl",
    "anchor_weight": 0.5,
    "anchor_ratio": 0.5,
    "retain_weight": 5.0,
    "retain_ratio": 3.0,
    "per_device_train_batch_size": 8,
    "warmup_steps": 5,
    "max_grad_norm": 0.0,
}
_BOUNDED: dict[str, Any] = {
    "levels": "ngram",
    "forget_nll_bound": "levels",
    "per_device_train_batch_size": 16,
    "retain_ratio": 2.0,
    "lr_scheduler_type": "linear",
}


def _last_part(steps: int, part: float = 0.1) -> dict[str, Any]:
    """The length of a run, at a constant rate that falls to a tenth in the last part of it."""
    decay = {"num_decay_steps": round(steps * part), "min_lr_ratio": 0.1}
    return {"max_steps": steps, "lr_scheduler_type": "warmup_stable_decay", "lr_scheduler_kwargs": decay}


# Batches twice as large, each step taken from the worst weights nearby, and a longer last part, of the same tokens.
_SAM = (
    _LEVELS
    | _last_part(268, 0.35)
    | {
        "per_device_train_batch_size": 16,
        "retain_ratio": 2.0,
        "anchor_ratio": 0.25,
        "step_wrappers": {"name": "sam", "rho": 0.1},
    }
)

# name -> arguments of UnlearningConfig; "rank" makes it a run of a LoRA adapter (`adapter_of_rank`)
RECIPES: dict[str, dict[str, Any]] = {
    "unseen_level": _LEVELS | _last_part(385) | {"forget_weight": 0.25, "learning_rate": 6e-4},
    "unseen_level, SAM": _SAM | {"forget_weight": 0.4, "learning_rate": 6.5e-4},
    "unseen_level, LoRA": _SAM | {"rank": 64, "forget_weight": 0.8, "learning_rate": 1.1e-3},
    "simnpo, bound": _BOUNDED
    | {"forget_loss": {"name": "simnpo", "beta": 0.5}, "retain_weight": 4.0, "learning_rate": 5e-4, "max_steps": 150},
    "npo, bound": _BOUNDED
    | {"forget_loss": {"name": "npo", "beta": 0.03}, "retain_weight": 5.0, "learning_rate": 5e-4, "max_steps": 150},
    "grad_ascent, bound": _BOUNDED
    | {"forget_loss": "grad_ascent", "retain_weight": 3.0, "learning_rate": 2e-4, "max_steps": 150},
    "rmu, bound": _BOUNDED
    | {
        "forget_loss": {"name": "rmu", "c": 10.0, "layer": 2},
        "retain_loss": {"name": "hidden", "layer": 2},
        "retain_weight": 10.0,
        "learning_rate": 5e-4,
        "max_steps": 150,
    },
}
RETRAINING_EPOCHS = 16


def recipe_folder(name: str) -> str:
    """A recipe's name as that of a folder."""
    return re.sub(r"[^a-z]+", "_", name.lower())


class Bench:
    """The sets, and the oracle's figures that others are compared with."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.tokenizer = AutoTokenizer.from_pretrained(options.model)
        self.tofu: Tofu = read_tofu(options.data, self.tokenizer, options.split)
        self.holdout = [*self.tofu.holdout_calibration, *self.tofu.holdout_measured]
        self.unseen = measurement_rows(datasets.Dataset.from_list(self.holdout)).to_list()
        oracle = load(options.oracle).eval()
        self.oracle_ratios = self.truth_ratios(oracle)
        self.oracle_nll = scored(oracle, self.tofu.forget, options.measure_batch_size).nll
        others = [row for name in ("real_authors", "world_facts") for row in read_json_lines(options.data, name)]
        rows = [*self.tofu.retain, *(tokenize(self.tokenizer, row["question"], row["answer"]) for row in others)]
        self.retraining_tokens = RETRAINING_EPOCHS * sum(len(row["input_ids"]) for row in rows)

    def truth_ratios(self, model: PreTrainedModel) -> np.ndarray:
        """exp(nll(paraphrased answer) - mean_i nll(perturbed answer i)) of every forget row."""
        size, tofu = self.options.measure_batch_size, self.tofu
        perturbed = scored(model, tofu.perturbed, size).nll.reshape(len(tofu.forget), -1)
        return np.exp(scored(model, tofu.paraphrased, size).nll - perturbed.mean(1))

    def figures(self, model: PreTrainedModel, *, relearn: bool = True) -> dict[str, float]:
        """Of one model, without what its training took; with `relearn` the relearnt probability among them."""
        model.eval()
        size = self.options.measure_batch_size
        forget, unseen = scored(model, self.tofu.forget, size), scored(model, self.unseen, size)
        ratios = self.truth_ratios(model)
        figures = {
            "forget_nll": forget.nll.mean(),
            "forget_probability": np.exp(-forget.nll).mean(),
            "forget_quality": ks_2samp(ratios, self.oracle_ratios).pvalue,
            "truth_ratio": np.minimum(ratios, 1 / ratios).mean(),
            "extraction_strength": extraction_strength(forget.right),
            "exact_memorisation": np.mean([row.mean() for row in forget.right]),
            "loss_auc": auc([row.mean() for row in forget.logps], [row.mean() for row in unseen.logps]),
            "min_k_auc": auc(lowest(forget.logps), lowest(unseen.logps)),
            "level_error": np.median(np.abs(forget.nll - self.oracle_nll)),
            "unseen_nll": unseen.nll.mean(),
            "retain_probability": np.exp(-scored(model, self.tofu.retain_measured, size).nll).mean(),
        }
        if relearn:
            figures["relearnt_probability"] = self.relearnt_probability(model)
        return {name: float(value) for name, value in figures.items()}

    def relearnt_probability(self, model: PreTrainedModel) -> float:
        """Of the forget rows that a short fine-tuning of a copy did not see."""
        model = copy.deepcopy(model).requires_grad_(True)
        count = min(40, len(self.tofu.forget) // 4)
        order = np.concatenate([np.random.default_rng(0).permutation(count), np.arange(count, len(self.tofu.forget))])
        optimizer = torch.optim.AdamW(model.parameters(), lr=self.options.relearn_learning_rate, weight_decay=0.0)
        for step in range(self.options.relearn_steps):
            places = order[:count][np.arange(step * 8, step * 8 + 8) % count]
            ids, labels, mask = pad([self.tofu.forget[i] for i in places], model.device)
            model(input_ids=ids, attention_mask=mask, labels=labels, use_cache=False).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        others = [self.tofu.forget[i] for i in order[count:]]
        return float(np.exp(-scored(model, others, self.options.measure_batch_size).nll).mean())

    def run(self, name: str, seed: int) -> dict[str, float]:
        """Unlearn with one recipe and seed, and measure."""
        model, spent = self.trained(RECIPES[name], seed)
        if self.options.save_models is not None:
            model.save_pretrained(self.options.save_models / f"{recipe_folder(name)}-{seed}")
        return self.figures(model) | spent

    def trained(
        self,
        recipe: dict[str, Any],
        seed: int,
        model: PreTrainedModel | None = None,
        reference: PreTrainedModel | None = None,
    ) -> tuple[PreTrainedModel, dict[str, float]]:
        """A model after training, its adapter merged, and what that took; arguments as those of `unlearn_rows`."""
        sets = {"forget": self.tofu.forget, "retain": self.tofu.retain, "holdout": self.holdout}
        start = load(self.options.model) if model is None else model
        model, spent = unlearn_rows(start, sets, self.tokenizer, recipe, seed, reference)
        return model, spent | {"token_share": spent["tokens"] / self.retraining_tokens}


def main() -> None:
    """Measure what is not measured yet."""
    parser = bench_parser(__doc__, RECIPES, "0,1,2")
    parser.add_argument("--save_models", type=Path, help="folder for the unlearned models, merged")
    options = parsed(parser, RECIPES)
    results, bench = opened(options), Bench(options)
    run_all(options, results, bench.figures, lambda name: {"arguments": RECIPES[name]}, bench.run)


if __name__ == "__main__":
    main()
