"""How near are levels to a model that never saw the rows, before anything is trained? Ways to estimate them, compared.

    python -m benchmarks.quality.level_estimates --model tofu-full --oracle tofu-retain90 --data tofu --output out.json

The models, files and rows are those of `levels.py`. Each way predicts the NLL of a row from n-grams of the retain
rows, fitted on the calibration half of the holdout rows with what the model before unlearning gives them:

- "line": the package's, a straight line on the row's mean 4-gram NLL;
- "curve": a monotone curve (isotonic regression) of the NLL of single tokens by their 4-gram NLL, then the line on the
  mean of the curve over a row;
- "trees": gradient-boosted trees of single tokens by their NLL under a 1-, 2-, 4- and 6-gram, then the same line;
- "trees, copies": these are also told whether the token, or its pair with the one before, stood in the row before.

A row's tokens weigh 1 together. `cross_validated` predicts each calibration row by what was fitted without its fold
(of five), and is what a choice between the ways may rest on; `unseen` is the other half of the holdout. `forget`
compares with the oracle, which nothing is fitted on. `auc_at_levels` is the loss AUC of forget rows that all stand at
their levels, residuals dealt out as the package does, against the unseen half under the model before.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from scipy.optimize import isotonic_regression
from sklearn.ensemble import HistGradientBoostingRegressor
from transformers import AutoTokenizer

from benchmarks.common.environment import machine, versions
from benchmarks.quality.teacher_forcing import TokenizedRow, auc, scored
from benchmarks.quality.tofu_bound import load, read_tofu
from hf_unlearn.data.holdout_split import calibration_rows, measurement_rows
from hf_unlearn.training.levels.ngram import NGram
from hf_unlearn.training.levels.regression import FOLDS, Line, dealt_out

ORDERS = (1, 2, 4, 6)
_FOUR = ORDERS.index(4)
WAYS = ("line", "curve", "trees", "trees, copies")

Rows = list[np.ndarray]
Tokens = Callable[[np.ndarray], np.ndarray]  # from columns of tokens to one number of each


def token_columns(rows: Sequence[TokenizedRow], ngrams: Sequence[NGram]) -> Rows:
    """Of each row [answer tokens, columns]: the NLL under each n-gram; token seen before, pair seen before."""
    ids = [np.array(row["input_ids"]) for row in rows]
    nll = np.stack([-ngram.logps(ids) for ngram in ngrams], axis=1)
    parts = np.split(nll, np.cumsum([len(row) for row in ids])[:-1])
    columns = []
    for row, part in zip(rows, parts, strict=True):
        tokens = row["input_ids"]
        pairs = list(zip([-1, *tokens], tokens, strict=False))
        copied = [[tokens[t] in tokens[:t], pairs[t] in pairs[:t]] for t in range(len(tokens))]
        answer = np.array(row["labels"]) != -100
        columns.append(np.hstack([part, np.array(copied, float)])[answer])
    return columns


def monotone(profile: np.ndarray, nll: np.ndarray, weights: np.ndarray) -> Tokens:
    """The isotonic regression of NLL on the 4-gram's, straight between what was seen of it."""
    values, place = np.unique(profile, return_inverse=True)
    mass = np.bincount(place, weights)
    heights = isotonic_regression(np.bincount(place, weights * nll) / mass, weights=mass).x
    return lambda part: np.interp(part[:, _FOUR], values, heights)


def boosted(tokens: np.ndarray, nll: np.ndarray, weights: np.ndarray) -> Tokens:
    """Trees of so many columns as `tokens` has."""
    trees = HistGradientBoostingRegressor(
        max_iter=80, learning_rate=0.06, max_leaf_nodes=12, min_samples_leaf=60, early_stopping=False
    ).fit(tokens, nll, sample_weight=weights)
    return lambda part: np.asarray(trees.predict(part[:, : tokens.shape[1]]))


def bent(way: str, columns: Rows, nll: Rows) -> Tokens:
    """What a way makes of single tokens, fitted on those of some rows."""
    values, weights = np.concatenate(nll), np.concatenate([np.full(len(row), 1 / len(row)) for row in nll])
    tokens = np.concatenate(columns)
    if way == "line":
        return lambda part: part[:, _FOUR]
    if way == "curve":
        return monotone(tokens[:, _FOUR], values, weights)
    return boosted(tokens if way == "trees, copies" else tokens[:, : len(ORDERS)], values, weights)


def fitted(way: str, columns: Rows, nll: Rows) -> Callable[[Rows], np.ndarray]:
    """What predicts the NLL of rows, fitted on some."""
    of_tokens = bent(way, columns, nll)

    def profile(rows: Rows) -> np.ndarray:
        return row_means([of_tokens(row) for row in rows])

    line = Line.fit(profile(columns), row_means(nll))
    return lambda rows: line(profile(rows))


def row_means(values: Rows) -> np.ndarray:
    """Per token, of each row."""
    return np.array([row.mean() for row in values])


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


def left_out(way: str, columns: Rows, nll: Rows) -> np.ndarray:
    """Every row as predicted by what was fitted on the rows of other folds."""
    folds, predicted = np.arange(len(nll)) % FOLDS, np.empty(len(nll))
    for fold in range(FOLDS):
        others, own = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        predict = fitted(way, [columns[i] for i in others], [nll[i] for i in others])
        predicted[own] = predict([columns[i] for i in own])
    return predicted


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
    calibration, unseen = ([-row for row in scored(model, rows, 32).logps] for rows in halves)
    under_oracle = scored(load(options.oracle).eval(), tofu.forget, 32).nll
    retain = [np.array(row["input_ids"]) for row in tofu.retain]
    ngrams = [NGram.count(retain, model.config.vocab_size, order) for order in ORDERS]
    columns = [token_columns(rows, ngrams) for rows in (tofu.forget, *halves)]
    unseen_scores = list(-row_means(unseen))
    keys = [str(number) for number in np.random.default_rng(0).permutation(len(tofu.forget))]
    ways: dict[str, dict[str, Any]] = {}
    for way in WAYS:
        predict = fitted(way, columns[1], calibration)
        levels, told, others = (predict(part) for part in columns)
        spread = np.maximum(levels + dealt_out(row_means(calibration) - told, keys), 0.0)
        ways[way] = {
            "cross_validated": agreement(left_out(way, columns[1], calibration), row_means(calibration)),
            "unseen": agreement(others, row_means(unseen)),
            "forget": agreement(levels, under_oracle),
            "auc_at_levels": auc(list(-spread), unseen_scores),
        }
        print(f"{way:16}", *(f"{name} {ways[way][name]['distance']:.3f}" for name in ("cross_validated", "forget")))
    oracle = {"mean": float(under_oracle.mean()), "auc_at_levels": auc(list(-under_oracle), unseen_scores)}
    return {"calibration_rows": len(calibration), "unseen_rows": len(unseen), "oracle": oracle, "ways": ways}


def main() -> None:
    """Compare the ways and write the file."""
    options = parse_arguments()
    settings = {name: getattr(options, name).name for name in ("model", "oracle", "data")} | {"split": options.split}
    results = {"settings": settings, "machine": machine(cuda=False), "versions": versions()} | compared(options)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
