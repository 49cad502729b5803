"""Do attacks find nothing where there is nothing? Draws of never-seen rows take the place of the forget rows.

    python -m benchmarks.quality.attack_null --output benchmarks/results/attack_null_lab.json

For every draw the lab's holdout rows are dealt into two sets: one is attacked as if it had been unlearned, the other
is the control. The model (the lab's, before unlearning) has seen neither, so every true excess is 0, and the interval
of the worst attack of each class should hold 0 in 95 of 100 draws.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.common.environment import machine, versions
from hf_unlearn.attacks import ATTACK_SUITES, attack
from hf_unlearn.lab import load_lab

# The quick suite, less the adapter that there is not, and membership.
ATTACKS = [one for one in ATTACK_SUITES["quick"] if one["name"] != "remove_adapter"] + [{"name": "membership"}]


def drawn(holdout: datasets.Dataset, retain: datasets.Dataset, draw: int, rows: int) -> tuple[dict[str, Any], Any]:
    """The sets of a draw: rows in the place of forget rows with the retain rows, and controls."""
    order = np.random.default_rng(draw).permutation(len(holdout))
    forget, controls = (holdout.select(order[start : start + rows]) for start in (0, rows))
    return {"forget": forget, "retain": retain}, controls


def main() -> None:
    """Attack every draw, and count how often the intervals hold 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--rows", type=int, default=120, help="of either set")
    parser.add_argument("--output", type=Path, required=True, help="JSON file")
    options = parser.parse_args()
    transformers.utils.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    lab = load_lab()
    model = AutoModelForCausalLM.from_pretrained(lab.model_path, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(lab.model_path)
    started, draws = time.process_time(), []
    for draw in range(options.draws):
        sets, controls = drawn(lab.datasets["holdout"], lab.datasets["retain"], draw, options.rows)
        report = attack(model, tokenizer, sets, ATTACKS, controls=controls, batch_size=64, seed=draw)
        worst = {}
        for threat, case in report.worst.items():
            assert case.excess is not None  # there are controls
            worst[threat] = {"attack": case.attack, "excess": case.excess.value, "low": case.excess.low}
            worst[threat] |= {"high": case.excess.high, "recovered": case.recovered}
        draws.append(worst)
        print(draw, {threat: f"{c['excess']:.3f} [{c['low']:.3f}, {c['high']:.3f}]" for threat, c in worst.items()})
    held = {threat: sum(draw[threat]["low"] <= 0 <= draw[threat]["high"] for draw in draws) for threat in draws[0]}
    print(f"intervals that hold 0, of {options.draws}: {held}")
    results = {"attacks": ATTACKS, "rows": options.rows, "hold_zero": held, "draws": draws}
    results |= {"cpu_seconds": time.process_time() - started}
    results |= {"machine": machine(cuda=torch.cuda.is_available()), "versions": versions()}
    options.output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
