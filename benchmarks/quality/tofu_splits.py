"""TOFU's evaluation of its three forget splits, on a model that was trained with all rows and one without forget10.

    python -m benchmarks.quality.tofu_splits --model MODEL --oracle ORACLE --data FOLDER \
        --output benchmarks/results/tofu_splits_cpu.json

MODEL was trained on all of TOFU, ORACLE on all but forget10, which forget01 and forget05 are parts of; FOLDER has
TOFU's JSON files. Greedy answers, the forget questions in other words too. Nothing is unlearned here.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.common.environment import machine, versions
from hf_unlearn.evaluation import EvaluationResult, evaluate, tofu
from hf_unlearn.model.loading import load_tokenizer
from hf_unlearn.tasks.saved_run import load_answering

SPLITS = ("forget01", "forget05", "forget10")


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("model", "oracle", "data", "output"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--splits", nargs="+", default=SPLITS)
    parser.add_argument("--limit", type=int, help="rows of each set, for a trial")
    args = parser.parse_args()
    torch.set_num_threads(1)
    found = {split: _split(args, split) for split in args.splits}
    command = "python -m benchmarks.quality.tofu_splits --model tofu-full --oracle tofu-retain90 --data tofu"
    stored = {
        "command": command,
        "machine": machine(cuda=False),
        "versions": versions(),
        "limit": args.limit,
        "splits": found,
    }
    Path(args.output).write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")


def _split(args: argparse.Namespace, split: str) -> dict[str, Any]:
    """Both models on one split, the oracle first."""
    oracle, own = _measured(args, args.oracle, split, None)
    full, seconds = _measured(args, args.model, split, oracle)
    both = {"full": full, "oracle": oracle}
    for name in full.headline:
        print(
            split, name, *(f"{result.metrics[name].value:.4g}" for result in both.values() if name in result.metrics)
        )
    figures = {name: {m: figure.to_dict() for m, figure in result.metrics.items()} for name, result in both.items()}
    return {"figures": figures, "rows": full.rows, "cpu_seconds": {"full": seconds, "oracle": own}}


def _measured(
    args: argparse.Namespace, model: str, split: str, oracle: EvaluationResult | None
) -> tuple[EvaluationResult, float]:
    suite = tofu(args.data, split, oracle=oracle, limit=args.limit, reworded=True)
    started = time.process_time()
    result = evaluate(load_answering(model, {}), load_tokenizer(model), suite)
    return result, round(time.process_time() - started, 1)


if __name__ == "__main__":
    main()
