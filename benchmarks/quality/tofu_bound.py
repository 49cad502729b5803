"""Measures whether a bounded recipe reaches the oracle on TOFU's forget10, with and without the row bound.

    python -m benchmarks.quality.tofu_bound --model tofu-full --oracle tofu-retain90 --data tofu --output results.json

`--model` has learnt all of TOFU, `--oracle` (the same recipe, retrained) all but forget10; `--data` holds TOFU's JSON
Lines files forget10_perturbed, retain90, retain_perturbed and holdout10. Needs scipy (the extra `dev` or `eval`). For
each bound and seed `UnlearningTrainer` unlearns a model, which is then measured beside the model before unlearning and
the oracle by the teacher-forced scorer below. It shares no code with the package, which thus does not grade itself.

A row is `<s><|user|>{question}<|assistant|>{answer}</s>`; the closing token is part of the answer. All figures come
from nll, the mean negative log-likelihood of a row's answer tokens (nats per token), and are means over rows:

- probability: exp(-nll), the geometric mean of a row's token probabilities.
- truth ratio r: exp(nll(paraphrased answer) - mean_i nll(perturbed answer i)), reported as mean min(r, 1/r). The mean
  over perturbed answers is one of logarithms, as where TOFU's published code computes forget quality; the paper's
  equation and that code's truth-ratio figure average probabilities instead, which moves it up by about 0.02 here.
- forget quality: the p-value of a two-sample Kolmogorov-Smirnov test between the r of a model and of the oracle. Above
  0.05 the test does not tell the two apart, which is less than showing that they are the same.

The bound is calibrated on the even rows of the holdout; the odd rows, which nothing was tuned on, give `holdout_nll`.
Retain rows are measured on retain_perturbed, 400 of the 3600 rows of retain90.

Paper: Maini et al. 2024, https://arxiv.org/abs/2401.06121.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
import transformers
from scipy.stats import ks_2samp
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase, PrinterCallback

from benchmarks.quality.teacher_forcing import TokenizedRow, scored
from hf_unlearn import UnlearningConfig, UnlearningTrainer
from hf_unlearn.errors import input_error

PROMPT = "<s><|user|>{question}<|assistant|>"
ANSWER = "{answer}</s>"
SPECIAL_TOKENS = ("<s>", "</s>", "<|user|>", "<|assistant|>")
SPLIT = "forget10"
FILES = (f"{SPLIT}_perturbed", "retain90", "retain_perturbed", "holdout10")
COLUMNS = ("forget_quality", "truth_ratio", "forget_probability", "forget_nll", "retain_probability", "holdout_nll")


@dataclass(frozen=True)
class Tofu:
    """The tokenised sets. `perturbed` holds the forget rows' wrong answers, as many for each, row after row."""

    forget: list[TokenizedRow]
    paraphrased: list[TokenizedRow]
    perturbed: list[TokenizedRow]
    retain: list[TokenizedRow]
    retain_measured: list[TokenizedRow]
    holdout_calibration: list[TokenizedRow]
    holdout_measured: list[TokenizedRow]


@dataclass(frozen=True)
class Measurement:
    """One model's figures, and its truth ratios [forget rows], which forget quality compares."""

    figures: dict[str, float]
    truth_ratios: np.ndarray


def read_json_lines(folder: Path, name: str) -> list[dict[str, Any]]:
    """The rows of `name`.json, one JSON object a line.

    Raises:
        ValueError: no such file.
    """
    path = folder / f"{name}.json"
    if not path.is_file():
        raise input_error(
            expected=f"TOFU's files {', '.join(f'{file}.json' for file in FILES)} in one folder",
            got=f"a folder without {path.name}: {folder}",
            why="every set of the measurement is read from it",
            fix="pass --data with the folder that holds them",
        )
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def tokenize(tokenizer: PreTrainedTokenizerBase, question: str, answer: str) -> TokenizedRow:
    """A row's `input_ids`, and `labels` that are -100 on the prompt.

    Prompt and answer are tokenised apart, so that no tokenizer merges across their border.
    """
    prompt_ids = tokenizer(PROMPT.format(question=question), add_special_tokens=False)["input_ids"]
    answer_ids = tokenizer(ANSWER.format(answer=answer), add_special_tokens=False)["input_ids"]
    return {"input_ids": [*prompt_ids, *answer_ids], "labels": [-100] * len(prompt_ids) + answer_ids}


def read_tofu(folder: Path, tokenizer: PreTrainedTokenizerBase, split: str = SPLIT) -> Tofu:
    """Read and tokenise every set.

    Args:
        folder: of TOFU's files.
        tokenizer: of the models.
        split: what is forgotten: "forget10", or "forget05" and "forget01", which are parts of it.

    Raises:
        ValueError: a missing file, or a tokenizer that does not know the markers of a row.
    """
    unknown = [token for token in SPECIAL_TOKENS if token not in tokenizer.get_vocab()]
    if unknown:
        raise input_error(
            expected=f"a tokenizer with the tokens {' '.join(SPECIAL_TOKENS)}",
            got=f"one without {' '.join(unknown)}",
            why="rows are laid out with them, and a model of another layout would be measured on text it never saw",
            fix="pass a --model trained on that layout, or change PROMPT and ANSWER in this script",
        )
    forget, retain, retain_measured, holdout = (
        read_json_lines(folder, name) for name in (f"{split}_perturbed", *FILES[1:])
    )

    def rows(source: list[dict[str, Any]], column: str = "answer") -> list[TokenizedRow]:
        return [tokenize(tokenizer, row["question"], row[column]) for row in source]

    return Tofu(
        forget=rows(forget),
        paraphrased=rows(forget, "paraphrased_answer"),
        perturbed=[tokenize(tokenizer, row["question"], wrong) for row in forget for wrong in row["perturbed_answer"]],
        retain=rows(retain),
        retain_measured=rows(retain_measured),
        holdout_calibration=rows(holdout[0::2]),
        holdout_measured=rows(holdout[1::2]),
    )


def row_nll(model: PreTrainedModel, rows: Sequence[TokenizedRow], batch_size: int) -> np.ndarray:
    """nll of every row, [rows], nats per token: the mean of -log p(token | all before) over a row's answer tokens."""
    return scored(model, rows, batch_size).nll


def measure(model: PreTrainedModel, tofu: Tofu, batch_size: int) -> Measurement:
    """The figures of one model; forget quality is added where the oracle is known."""
    model.eval()
    forget = row_nll(model, tofu.forget, batch_size)
    retain = row_nll(model, tofu.retain_measured, batch_size)
    perturbed = row_nll(model, tofu.perturbed, batch_size).reshape(len(tofu.forget), -1)
    truth_ratios = np.exp(row_nll(model, tofu.paraphrased, batch_size) - perturbed.mean(1))
    figures = {
        "truth_ratio": np.minimum(truth_ratios, 1 / truth_ratios).mean(),
        "forget_probability": np.exp(-forget).mean(),
        "forget_nll": forget.mean(),
        "retain_probability": np.exp(-retain).mean(),
        "holdout_nll": row_nll(model, tofu.holdout_measured, batch_size).mean(),
    }
    return Measurement({name: float(value) for name, value in figures.items()}, truth_ratios)


def compared(measurement: Measurement, oracle: Measurement) -> dict[str, float]:
    """A model's figures with its forget quality against the oracle."""
    p_value = ks_2samp(measurement.truth_ratios, oracle.truth_ratios).pvalue
    return {"forget_quality": float(p_value), **measurement.figures}


def load(folder: Path) -> PreTrainedModel:
    """A model in fp32, the precision in which the figures of this benchmark were taken.

    Raises:
        ValueError: the folder holds no model.
    """
    if not (folder / "config.json").is_file():
        raise input_error(
            expected="the folder of a saved model",
            got=f"{folder}, which holds no config.json",
            why="a path that is no folder would be looked up as a model's name on the Hub",
            fix="pass --model and --oracle as folders written by save_pretrained",
        )
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def unlearn(
    arguments: argparse.Namespace, tofu: Tofu, tokenizer: PreTrainedTokenizerBase, bound: str, seed: int
) -> tuple[PreTrainedModel, float]:
    """Run one recipe: the unlearned model, and the seconds that `train()` took."""
    sets = {"forget": tofu.forget, "retain": tofu.retain, "holdout": tofu.holdout_calibration}
    with tempfile.TemporaryDirectory() as output_dir:
        config = UnlearningConfig(
            output_dir=output_dir,
            forget_loss=arguments.forget_loss,
            retain_loss="nll",
            retain_weight=arguments.retain_weight,
            retain_ratio=arguments.retain_ratio,
            forget_nll_bound=bound,
            num_train_epochs=arguments.epochs,
            per_device_train_batch_size=arguments.batch_size,
            learning_rate=arguments.learning_rate,
            lr_scheduler_type=arguments.lr_scheduler_type,
            weight_decay=0.0,
            max_grad_norm=arguments.max_grad_norm,
            seed=seed,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        trainer = UnlearningTrainer(
            model=load(arguments.model),
            args=config,
            train_dataset={name: datasets.Dataset.from_list(rows) for name, rows in sets.items()},
            processing_class=tokenizer,
        )
        trainer.remove_callback(PrinterCallback)  # its lines would cut through the table
        start = time.perf_counter()
        trainer.train()
        return trainer.accelerator.unwrap_model(trainer.model), time.perf_counter() - start


def parse_arguments() -> argparse.Namespace:
    """The command line. Its defaults are the bounded recipe that came nearest to the oracle, of the few tried."""
    parser = argparse.ArgumentParser(
        description="Unlearn TOFU's forget10 with and without the row bound, and compare with the retrained oracle.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--model", type=Path, required=True, help="folder of the model that has learnt all of TOFU")
    parser.add_argument("--oracle", type=Path, required=True, help="folder of the model retrained without forget10")
    parser.add_argument("--data", type=Path, required=True, help="folder of TOFU's JSON Lines files")
    parser.add_argument("--output", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--bounds", default="none,holdout", help="values of forget_nll_bound, separated by commas")
    parser.add_argument("--seeds", default="0,1,2", help="seeds, separated by commas; each bound runs once with each")
    parser.add_argument("--forget_loss", default='{"name": "simnpo", "beta": 0.5}', help="a name, or JSON")
    parser.add_argument("--retain_weight", type=float, default=4.0, help="weight of the retain NLL")
    parser.add_argument("--retain_ratio", type=float, default=2.0, help="retain rows that join each forget row")
    parser.add_argument("--epochs", type=float, default=6.0, help="passes over the forget rows")
    parser.add_argument("--batch_size", type=int, default=8, help="forget rows a step")
    parser.add_argument("--learning_rate", type=float, default=5e-4, help="peak learning rate of AdamW")
    parser.add_argument("--lr_scheduler_type", default="linear", help="learning-rate schedule of TrainingArguments")
    parser.add_argument("--max_grad_norm", type=float, default=1.0, help="gradient clipping; 0 for none")
    parser.add_argument("--measure_batch_size", type=int, default=32, help="rows a forward of the measurement")
    return parser.parse_args()


def print_row(name: str, figures: dict[str, float]) -> None:
    """One line of the table: the figures in the order of its heading."""
    print(f"{name:28}" + "".join(f"{figures[column]:>20.3g}" for column in COLUMNS), flush=True)


def main() -> None:
    """Measure before, oracle and every run; print the table as it grows and write the whole as JSON."""
    arguments = parse_arguments()
    arguments.output.parent.mkdir(parents=True, exist_ok=True)  # now, rather than after the first run
    model, oracle_model = load(arguments.model), load(arguments.oracle)
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    tofu = read_tofu(arguments.data, tokenizer)
    before, oracle = (
        measure(measured_model, tofu, arguments.measure_batch_size) for measured_model in (model, oracle_model)
    )
    # Folder names say what was measured; where the folders lie on this machine is nobody's result.
    settings = {name: value.name if isinstance(value, Path) else value for name, value in vars(arguments).items()}
    results: dict[str, Any] = {
        "settings": settings,
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "before": compared(before, oracle),
        "oracle": compared(oracle, oracle),
        "runs": [],
    }
    print(f"{'':28}" + "".join(f"{column:>20}" for column in COLUMNS))
    print_row("before", results["before"])
    print_row("oracle", results["oracle"])
    for bound in arguments.bounds.split(","):
        for seed in map(int, arguments.seeds.split(",")):
            model, seconds = unlearn(arguments, tofu, tokenizer, bound, seed)
            figures = compared(measure(model, tofu, arguments.measure_batch_size), oracle)
            results["runs"].append({"bound": bound, "seed": seed, "train_seconds": round(seconds, 1), **figures})
            print_row(f"bound {bound}, seed {seed}", figures)
            # Written after every run, so that an interrupted measurement keeps what it has.
            arguments.output.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
