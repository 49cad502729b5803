"""How near are levels to a model that never saw the rows, before anything is trained? Ways to estimate them, compared.

    python -m benchmarks.quality.level_estimates --model tofu-full --oracle tofu-retain90 --data tofu --output out.json

The models, files and rows are those of `levels.py`. Each way predicts the NLL of a row from n-grams of the retain
rows, fitted on the calibration half of the holdout rows with what the model before unlearning gives them. They are the
package's (`hf_unlearn.training.levels.fits`): "line" on the row's mean 4-gram NLL; "curve", an isotonic regression of
tokens by their 4-gram NLL first; "trees", boosted ones of tokens by 1-, 2-, 4- and 6-gram and what the row copies from
itself. The package takes the one that tells rows left out best: "chosen" says which.

`cross_validated` predicts each calibration row by what was fitted without its fold (of five), which is what the choice
rests on; `unseen` is the other half of the holdout. `forget` compares with the oracle, which nothing is fitted on.
`auc_at_levels` is the loss AUC of forget rows that all stand at their levels, residuals dealt out as the package does,
against the unseen half under the model before.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from transformers import AutoTokenizer

from benchmarks.common.environment import machine, versions
from benchmarks.quality.teacher_forcing import TokenizedRow, auc, scored
from benchmarks.quality.tofu_bound import load, read_tofu
from hf_unlearn.data.holdout_split import calibration_rows, measurement_rows
from hf_unlearn.model.score_rows import RowLogps
from hf_unlearn.training.levels.fits import CURVE, LINE, TREES, LevelFit, choose_fit, left_out
from hf_unlearn.training.levels.ngram import NGram
from hf_unlearn.training.levels.ngram_columns import ORDERS
from hf_unlearn.training.levels.profile import Profile, ngram_logps, ngram_profile
from hf_unlearn.training.levels.regression import dealt_out

WAYS = (LINE, CURVE, TREES)


def agreement(predicted: np.ndarray, nll: np.ndarray) -> dict[str, float]:
    """How near predictions of rows are to their NLL."""
    distance = predicted - nll
    return {
        "mean": float(predicted.mean()),
        "bias": float(distance.mean()),
        "pearson": float(np.corrcoef(predicted, nll)[0, 1]),
        "distance": float(np.abs(distance).mean()),
        "rmse": float(np.sqrt((distance**2).mean())),
    }


def row_logps(logps: Sequence[np.ndarray]) -> RowLogps:
    """Log-probs of rows as the package has them."""
    flat = torch.from_numpy(np.concatenate(logps)).float()
    return RowLogps(flat, torch.tensor([len(row) for row in logps]))


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="folder of the model that has learnt all of TOFU")
    parser.add_argument("--oracle", type=Path, required=True, help="folder of the model retrained without forget10")
    parser.add_argument("--data", type=Path, required=True, help="folder of TOFU's files")
    parser.add_argument("--output", type=Path, required=True, help="JSON file")
    parser.add_argument("--split", default="forget10", choices=("forget01", "forget05", "forget10"))
    return parser.parse_args()


def compared(options: argparse.Namespace) -> dict[str, Any]:
    """The figures of every way."""
    tofu = read_tofu(options.data, AutoTokenizer.from_pretrained(options.model), options.split)
    holdout = datasets.Dataset.from_list([*tofu.holdout_calibration, *tofu.holdout_measured])
    halves = calibration_rows(holdout).to_list(), measurement_rows(holdout).to_list()
    model = load(options.model).eval()
    calibration, unseen = (row_logps(scored(model, rows, 32).logps) for rows in halves)
    nll, unseen_nll = (rows.nll_per_token().double().numpy() for rows in (calibration, unseen))
    under_oracle = scored(load(options.oracle).eval(), tofu.forget, 32).nll
    retain = [np.array(row["input_ids"]) for row in tofu.retain]
    longest = NGram.count(retain, model.config.vocab_size, max(ORDERS))

    def profile(rows: list[TokenizedRow]) -> Profile:
        return ngram_profile(lambda order: ngram_logps(longest.shortened(order), rows), rows)

    forget, *both = (profile(rows) for rows in (tofu.forget, *halves))
    keys = [str(number) for number in np.random.default_rng(0).permutation(len(tofu.forget))]
    chosen = choose_fit(both[0], calibration, fewest=0)
    ways: dict[str, dict[str, Any]] = {}
    for way in WAYS:
        fitted, told = LevelFit.of(way, both[0], calibration), left_out(way, both[0], calibration)
        assert told is not None
        residuals = nll - (fitted(both[0]) if way == LINE else told.rows)
        spread = np.maximum(fitted(forget) + dealt_out(residuals, keys), 0.0)
        ways[way] = {
            "cross_validated": agreement(told.rows, nll),
            "unseen": agreement(fitted(both[1]), unseen_nll),
            "forget": agreement(fitted(forget), under_oracle),
            "auc_at_levels": auc(list(-spread), list(-unseen_nll)),
        }
        print(f"{way:16}", *(f"{name} {ways[way][name]['distance']:.3f}" for name in ("cross_validated", "forget")))
    oracle = {"mean": float(under_oracle.mean()), "auc_at_levels": auc(list(-under_oracle), list(-unseen_nll))}
    counts = {"calibration_rows": len(nll), "unseen_rows": len(unseen_nll)}
    return counts | {"chosen": chosen.fit.way, "oracle": oracle, "ways": ways}


def main() -> None:
    """Compare the ways and write the file."""
    options = parse_arguments()
    settings = {name: getattr(options, name).name for name in ("model", "oracle", "data")} | {"split": options.split}
    results = {"settings": settings, "machine": machine(cuda=False), "versions": versions()} | compared(options)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
