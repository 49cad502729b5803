"""What benchmarks of recipes on TOFU share: their command line, the file of their runs, the loop over recipes."""

import argparse
import json
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from benchmarks.common.environment import machine, versions
from benchmarks.quality.tofu_bound import load
from hf_unlearn.errors import require_choice

COLUMNS = (
    "forget_nll",
    "forget_quality",
    "extraction_strength",
    "loss_auc",
    "min_k_auc",
    "level_error",
    "unseen_nll",
    "retain_probability",
    "relearnt_probability",
    "token_share",
)


def bench_parser(description: str | None, recipes: Collection[str], seeds: str) -> argparse.ArgumentParser:
    """The arguments of a benchmark of recipes on TOFU.

    Args:
        description: of the benchmark.
        recipes: by name.
        seeds: that are run where none are named.
    """
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=description, formatter_class=formatter)
    parser.add_argument("--model", type=Path, required=True, help="folder of the model that has learnt all of TOFU")
    parser.add_argument("--oracle", type=Path, required=True, help="folder of the model retrained without forget10")
    parser.add_argument("--data", type=Path, required=True, help="folder of TOFU's files")
    parser.add_argument("--output", type=Path, required=True, help="JSON file; runs that it holds are not repeated")
    parser.add_argument("--split", default="forget10", choices=("forget01", "forget05", "forget10"))
    parser.add_argument("--recipes", default=";".join(recipes), help="names, separated by semicolons")
    parser.add_argument("--seeds", default=seeds, help="separated by commas")
    parser.add_argument("--relearn_steps", type=int, default=25)
    parser.add_argument("--relearn_learning_rate", type=float, default=1e-4)
    parser.add_argument("--measure_batch_size", type=int, default=32, help="rows a forward of the measurement")
    return parser


def parsed(parser: argparse.ArgumentParser, recipes: Collection[str]) -> argparse.Namespace:
    """The command line, its recipes as a list of known names."""
    options = parser.parse_args()
    options.recipes = options.recipes.split(";")
    for name in options.recipes:
        require_choice("--recipes", name, recipes)
    return options


def opened(options: argparse.Namespace) -> dict[str, Any]:
    """What the output file holds of the same settings; else nothing but these."""
    options.output.parent.mkdir(parents=True, exist_ok=True)
    named = ("split", "relearn_steps", "relearn_learning_rate", "measure_batch_size")
    settings = {name: getattr(options, name) for name in named} | {
        name: getattr(options, name).name for name in ("model", "oracle", "data")
    }
    if options.output.is_file():
        earlier: dict[str, Any] = json.loads(options.output.read_text(encoding="utf-8"))
        if earlier["settings"] == settings:
            return earlier
    return {"settings": settings, "runs": []}


def run_all(
    options: argparse.Namespace,
    results: dict[str, Any],
    measure: Callable[[PreTrainedModel], dict[str, float]],
    described: Callable[[str], dict[str, Any]],
    run: Callable[[str, int], dict[str, Any]],
) -> None:
    """Measure before and oracle, then every recipe with every seed; what the file holds already is not repeated.

    Args:
        options: of the command line.
        results: what the file holds.
        measure: the figures of a model.
        described: what a recipe is made of, by its name; another one of the same name is run again.
        run: carries out a recipe with a seed.
    """
    results |= {"machine": machine(cuda=torch.cuda.is_available()), "versions": versions()}
    print(f"{'':32}" + "".join(f"{column:>21}" for column in COLUMNS))
    for name, place in (("before", options.model), ("oracle", options.oracle)):
        if name not in results:
            results[name] = measure(load(place))
        print_row(name, results[name])
    for name in options.recipes:
        for seed in map(int, options.seeds.split(",")):
            known = {"recipe": name, "seed": seed} | described(name)
            done = next((made for made in results["runs"] if known.items() <= made.items()), None)
            if done is None:
                done = known | run(name, seed)
                results["runs"] = [made for made in results["runs"] if (made["recipe"], made["seed"]) != (name, seed)]
                results["runs"].append(done)
                # Written after every run, so that an interrupted measurement keeps what it has.
                options.output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
            print_row(f"{name}, seed {seed}", done)


def print_row(name: str, figures: dict[str, Any]) -> None:
    """One line of the table."""
    cells = [f"{figures[column]:>21.3g}" if column in figures else f"{'':>21}" for column in COLUMNS]
    print(f"{name:32}" + "".join(cells), flush=True)
