"""Attacks models on TOFU's forget10, with a retrained model and never-seen rows as controls.

    python -m benchmarks.quality.attacks_tofu --before tofu-full --oracle tofu-retain90 --data tofu \\
        --models simnpo=models/simnpo_bound-0 --output results.json

The model before unlearning and the retrained one are attacked too, as if they had been unlearned: attacks must find
what the one knows, and nothing in the other. Rows are laid out as in `tofu_bound.py`; the controls are the half of the
holdout rows that no run is fitted to (`hf_unlearn.data.holdout_split`), the other half is what the attacker has of the
same form. `levels.py --save_models` leaves models that can be named here.

A model that the output file holds already is not repeated.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import datasets
import torch
import transformers
from transformers import AutoTokenizer

from benchmarks.common.environment import machine, versions
from benchmarks.quality.attacks import compact, table
from benchmarks.quality.tofu_bound import load, read_tofu
from hf_unlearn.attacks import attack
from hf_unlearn.data.holdout_split import calibration_rows, measurement_rows

# The budget: a few CPU minutes a model. Everything else is an attack's default.
ATTACKS: list[dict[str, Any]] = [
    {"name": "membership"},
    {"name": "sampling"},
    {"name": "quantize"},
    {"name": "logit_lens"},
    {"name": "patching"},
    {"name": "prompts", "kinds": ("prefill",), "prefill": (1, 5)},
    {"name": "contrast", "weights": (1.0,)},
    {"name": "relearn", "rates": (1e-4, 1e-3), "steps": 25, "sets": ("forget",), "adapters": ("full",)},
]


def main() -> None:
    """Attack every model; print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, required=True, help="folder of the model that has learnt all of TOFU")
    parser.add_argument("--oracle", type=Path, required=True, help="folder of the model retrained without forget10")
    parser.add_argument("--data", type=Path, required=True, help="folder of TOFU's files")
    parser.add_argument("--models", nargs="*", default=[], metavar="NAME=FOLDER", help="models after unlearning")
    parser.add_argument("--attacks", type=json.loads, default=ATTACKS, help="as hf_unlearn.attacks.attack takes them")
    parser.add_argument("--rows", type=int, default=80, help="forget rows and controls that are attacked")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, required=True, help="JSON file, written after every model, and resumed")
    options = parser.parse_args()
    transformers.utils.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    tokenizer = AutoTokenizer.from_pretrained(options.before)
    tofu = read_tofu(options.data, tokenizer)
    holdout = [*tofu.holdout_calibration, *tofu.holdout_measured]
    # Rows of the same questions stand together: some of each author.
    forget = tofu.forget[:: max(1, len(tofu.forget) // options.rows)]
    sets = {"forget": forget, "retain": tofu.retain_measured, "related": calibration_rows(holdout)}
    controls = {"controls": measurement_rows(holdout), "oracle": load(options.oracle), "before": load(options.before)}
    settings = {"attacks": options.attacks, "rows": options.rows, "seed": options.seed}
    results: dict[str, Any] = {"settings": settings, "runs": {}}
    if options.output.is_file():
        earlier = json.loads(options.output.read_text(encoding="utf-8"))
        results = earlier if earlier["settings"] == json.loads(json.dumps(settings)) else results
    results |= {"machine": machine(cuda=torch.cuda.is_available()), "versions": versions()}
    named = dict(pair.split("=", 1) for pair in options.models)
    for name, folder in {"before": options.before, "oracle": options.oracle, **named}.items():
        if name not in results["runs"]:
            started = time.process_time()
            report = attack(
                load(Path(folder)),
                tokenizer,
                sets,
                options.attacks,
                limit=options.rows,
                seed=options.seed,
                **controls,
            )
            results["runs"][name] = compact(report) | {"cpu_seconds": time.process_time() - started}
            options.output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        print(table({"runs": {name: results["runs"][name]}}).splitlines()[-1], flush=True)
    print(table(results))


if __name__ == "__main__":
    main()
