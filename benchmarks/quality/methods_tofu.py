"""Runs every forget loss on TOFU's forget10, with the row bound off and calibrated, and then relearning.

    python -m benchmarks.quality.methods_tofu --model tofu-full --oracle tofu-retain90 --data tofu \\
        --output results.json

The models, files, rows and figures are those of `tofu_bound.py`; `idontknow.jsonl` (one refusal a line) lends the
alternate answers of forget and retain rows. Beside them: `retain_nll`, and `relearnt_probability`, the mean answer
probability of the other forget rows after 25 AdamW steps (1e-4, batch 8) on 40 forget rows, all weights trained.

The recipes stand in RECIPES. They share all but the losses, the weight of the retain side and the learning rate:
batch 8 forget and 8 retain rows, linear decay, 3 epochs, one seed. Each was written down from the published values and
a few short trials, not tuned; a method that does badly here may do better elsewhere. Results are written after every
run, and a run that the output file holds already is not repeated, nor one without the bound of a method of which no
row ever reached it.
"""

import argparse
import copy
import json
import random
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
import transformers
from scipy.stats import ks_2samp
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase, PrinterCallback

from benchmarks.quality.teacher_forcing import TokenizedRow
from benchmarks.quality.tofu_bound import ANSWER, PROMPT, Tofu, load, read_json_lines, read_tofu, row_nll
from hf_unlearn import DataCollatorForUnlearning, UnlearningConfig, UnlearningTrainer
from hf_unlearn.errors import input_error, require_choice
from hf_unlearn.model.fine_tuning import fine_tune

# name -> what differs: losses, weights, learning rate
RECIPES: dict[str, dict[str, Any]] = {
    "grad_ascent": {"forget_loss": "grad_ascent", "learning_rate": 3e-4},
    "npo": {"forget_loss": {"name": "npo", "beta": 0.03}, "learning_rate": 5e-4, "retain_weight": 5.0},
    "simnpo": {"forget_loss": {"name": "simnpo", "beta": 0.5}, "learning_rate": 7e-4},
    "dpo": {"forget_loss": {"name": "dpo", "beta": 0.03}, "learning_rate": 5e-4},
    "idk": {"forget_loss": "idk", "learning_rate": 5e-4},
    "idk + answer_preservation": {
        "forget_loss": "idk",
        "retain_loss": ["nll", "answer_preservation"],
        "learning_rate": 5e-4,
    },
    "random_mismatch": {"forget_loss": {"name": "random_mismatch", "k": 1}, "learning_rate": 5e-4},
    "max_entropy": {"forget_loss": "max_entropy", "learning_rate": 3e-4},
    "wga": {"forget_loss": "wga", "learning_rate": 5e-4},
    "satimp": {"forget_loss": "satimp", "learning_rate": 5e-4, "retain_weight": 1.0},
    "undial": {"forget_loss": "undial", "learning_rate": 5e-4},
    "ceu": {"forget_loss": "ceu", "learning_rate": 5e-4},
    "rmu": {
        "forget_loss": {"name": "rmu", "c": 10.0, "layer": 2},
        "retain_loss": {"name": "hidden", "layer": 2},
        "learning_rate": 5e-4,
        "retain_weight": 10.0,
    },
    "ihl": {"forget_loss": "ihl", "learning_rate": 5e-4},
    "jsd": {"forget_loss": "jsd", "retain_loss": "jsd", "learning_rate": 5e-4},
    "flat": {"forget_loss": "flat", "learning_rate": 5e-4},
    "logit_margin": {
        "forget_loss": {"name": "logit_margin", "weight": 0.01},
        "weighting": {"name": "primal_dual", "eta": 1.0, "epsilon": 0.1},
        "learning_rate": 3e-4,
    },
}
COLUMNS = (
    "forget_nll",
    "forget_quality",
    "truth_ratio",
    "retain_nll",
    "retain_probability",
    "relearnt_probability",
    "train_cpu_seconds",
)
RELEARN_ROWS, RELEARN_BATCH = 40, 8


def training_sets(tofu: Tofu, folder: Path, tokenizer: PreTrainedTokenizerBase) -> dict[str, datasets.Dataset]:
    """Forget, retain and holdout rows with a refusal for each forget and retain row, drawn with a fixed seed."""
    path = folder / "idontknow.jsonl"
    if not path.is_file():
        raise input_error(
            expected="idontknow.jsonl, one refusal a line, beside TOFU's files",
            got=f"a folder without it: {folder}",
            why="the losses with alternate answers move towards refusals",
            fix="pass --data with the folder that holds it",
        )
    refusals = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    questions = {name: [row["question"] for row in read_json_lines(folder, name)] for name in _QUESTIONS.values()}
    draw, sets = random.Random(0), {"holdout": datasets.Dataset.from_list(tofu.holdout_calibration)}
    for role, rows in (("forget", tofu.forget), ("retain", tofu.retain)):
        refused = [_row(tokenizer, question, draw.choice(refusals)) for question in questions[_QUESTIONS[role]]]
        columns = {name: [row[name] for row in rows] for name in ("input_ids", "labels")}
        alternates = {f"alternate_{name}": [row[name] for row in refused] for name in ("input_ids", "labels")}
        sets[role] = datasets.Dataset.from_dict(columns | alternates)
    return sets


_QUESTIONS = {"forget": "forget10_perturbed", "retain": "retain90"}


def _row(tokenizer: PreTrainedTokenizerBase, question: str, answer: str) -> TokenizedRow:
    prompt = tokenizer(PROMPT.format(question=question), add_special_tokens=False)["input_ids"]
    ids = tokenizer(ANSWER.format(answer=answer), add_special_tokens=False)["input_ids"]
    return {"input_ids": prompt + ids, "labels": [-100] * len(prompt) + ids}


def unlearn(
    arguments: argparse.Namespace, recipe: dict[str, Any], bound: str, sets: dict[str, datasets.Dataset]
) -> tuple[PreTrainedModel, dict[str, float]]:
    """One run: the unlearned model, and what training it took."""
    with tempfile.TemporaryDirectory() as output_dir:
        config = UnlearningConfig(
            output_dir=output_dir,
            forget_nll_bound=bound,
            num_train_epochs=arguments.epochs,
            per_device_train_batch_size=arguments.batch_size,
            lr_scheduler_type="linear",
            weight_decay=0.0,
            seed=arguments.seed,
            save_strategy="no",
            logging_steps=1,
            report_to="none",
            disable_tqdm=True,
            **{"retain_weight": 3.0} | recipe,
        )
        trainer = UnlearningTrainer(
            model=load(arguments.model),
            args=config,
            train_dataset=sets,
            processing_class=AutoTokenizer.from_pretrained(arguments.model),
        )
        trainer.remove_callback(PrinterCallback)  # its lines would cut through the table
        wall, cpu = time.perf_counter(), time.process_time()
        trainer.train()
        cost = {
            "train_seconds": time.perf_counter() - wall,
            "train_cpu_seconds": time.process_time() - cpu,
            "steps": trainer.state.global_step,
            "largest_bound_share": max(entry.get("bound_share", 0.0) for entry in trainer.state.log_history),
            "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }
        return trainer.accelerator.unwrap_model(trainer.model), cost


def relearnt_probability(model: PreTrainedModel, tofu: Tofu, arguments: argparse.Namespace) -> float:
    """Mean answer probability of the other forget rows after a short fine-tuning of a copy on some of them."""
    model = copy.deepcopy(model).requires_grad_(True)
    order = np.random.default_rng(0).permutation(len(tofu.forget))
    taught, others = order[:RELEARN_ROWS], order[RELEARN_ROWS:]
    budget = {"steps": arguments.relearn_steps, "batch": RELEARN_BATCH, "rate": arguments.relearn_learning_rate}
    collator = DataCollatorForUnlearning(model.config.pad_token_id or 0)
    for _step in fine_tune(model, [tofu.forget[i] for i in taught], collator, **budget):
        pass
    nll = row_nll(model.eval(), [tofu.forget[i] for i in others], arguments.measure_batch_size)
    return float(np.exp(-nll).mean())


def truth_ratios_of(model: PreTrainedModel, tofu: Tofu, batch_size: int) -> np.ndarray:
    """exp(nll(paraphrased answer) - mean_i nll(perturbed answer i)) of every forget row."""
    perturbed = row_nll(model, tofu.perturbed, batch_size).reshape(len(tofu.forget), -1)
    return np.exp(row_nll(model, tofu.paraphrased, batch_size) - perturbed.mean(1))


def all_figures(
    model: PreTrainedModel, tofu: Tofu, oracle_ratios: np.ndarray, arguments: argparse.Namespace
) -> dict[str, float]:
    """Every figure of one model."""
    model.eval()
    forget, retain = (
        row_nll(model, rows, arguments.measure_batch_size) for rows in (tofu.forget, tofu.retain_measured)
    )
    ratios = truth_ratios_of(model, tofu, arguments.measure_batch_size)
    figures = {
        "forget_nll": forget.mean(),
        "forget_probability": np.exp(-forget).mean(),
        "forget_quality": ks_2samp(ratios, oracle_ratios).pvalue,
        "truth_ratio": np.minimum(ratios, 1 / ratios).mean(),
        "retain_nll": retain.mean(),
        "retain_probability": np.exp(-retain).mean(),
        "relearnt_probability": relearnt_probability(model, tofu, arguments),
    }
    return {name: float(value) for name, value in figures.items()}


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="folder of the model that has learnt all of TOFU")
    parser.add_argument("--oracle", type=Path, required=True, help="folder of the model retrained without forget10")
    parser.add_argument("--data", type=Path, required=True, help="folder of TOFU's files and idontknow.jsonl")
    parser.add_argument("--output", type=Path, required=True, help="JSON file; runs that it holds are not repeated")
    parser.add_argument("--methods", default=",".join(RECIPES), help="names of recipes, separated by commas")
    parser.add_argument("--bounds", default="holdout,none", help="values of forget_nll_bound, separated by commas")
    parser.add_argument("--epochs", type=float, default=3.0, help="passes over the forget rows (default: 3)")
    parser.add_argument("--batch_size", type=int, default=8, help="forget rows a step, and as many retain rows")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--relearn_steps", type=int, default=25)
    parser.add_argument("--relearn_learning_rate", type=float, default=1e-4)
    parser.add_argument("--measure_batch_size", type=int, default=32, help="rows a forward of the measurement")
    arguments = parser.parse_args()
    arguments.methods, arguments.bounds = arguments.methods.split(","), arguments.bounds.split(",")
    for name in arguments.methods:
        require_choice("--methods", name, RECIPES)
    return arguments


def print_row(name: str, figures: dict[str, Any]) -> None:
    """One line of the table."""
    cells = [f"{figures[column]:>21.3g}" if column in figures else f"{'':>21}" for column in COLUMNS]
    print(f"{name:36}" + "".join(cells), flush=True)


def main() -> None:
    """Measure before and oracle, then every recipe under every bound."""
    arguments = parse_arguments()
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    skipped = ("output", "methods", "bounds")
    settings = {
        name: value.name if isinstance(value, Path) else value
        for name, value in vars(arguments).items()
        if name not in skipped
    }
    results: dict[str, Any] = {"settings": settings, "runs": []}
    if arguments.output.is_file():
        earlier = json.loads(arguments.output.read_text(encoding="utf-8"))
        results = earlier if earlier["settings"] == settings else results
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    tofu = read_tofu(arguments.data, tokenizer)
    sets = training_sets(tofu, arguments.data, tokenizer)
    oracle_model = load(arguments.oracle)
    oracle_ratios = truth_ratios_of(oracle_model.eval(), tofu, arguments.measure_batch_size)
    print(f"{'':36}" + "".join(f"{column:>21}" for column in COLUMNS))
    for name, model in (("before", load(arguments.model)), ("oracle", oracle_model)):
        if name not in results:
            results[name] = all_figures(model, tofu, oracle_ratios, arguments)
        print_row(name, results[name])
    results["versions"] = {"torch": torch.__version__, "transformers": transformers.__version__}
    for bound in arguments.bounds:  # all methods bounded first: a run that is cut short leaves a whole table
        for name in arguments.methods:
            recipe = RECIPES[name]
            done = [r for r in results["runs"] if (r["method"], r["bound"], r["recipe"]) == (name, bound, recipe)]
            if not done and bound == "none":
                # Where no row ever reached the bound, the run without it takes the same steps to the last bit.
                bounded = [r for r in results["runs"] if (r["method"], r["recipe"]) == (name, recipe)]
                done = [r | {"bound": bound} for r in bounded if r.get("largest_bound_share") == 0]
                results["runs"] += done
            if not done:
                model, cost = unlearn(arguments, recipe, bound, sets)
                figures = all_figures(model, tofu, oracle_ratios, arguments)
                done = [{"method": name, "bound": bound, "recipe": recipe, **figures, **cost}]
                results["runs"] += done
                # Written after every run, so that an interrupted measurement keeps what it has.
                arguments.output.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
            print_row(f"{name}, bound {bound}", done[0])


if __name__ == "__main__":
    main()
