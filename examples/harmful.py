"""Make a model forget harmful answers, and show what it cost.

With no arguments: the lab, a small model with a made-up behaviour, offline and on a CPU, in about a minute.

    accelerate launch examples/harmful.py

The experiment of Gundavarapu et al. 2024 (OPT-1.3b, PKU-SafeRLHF, TruthfulQA), full parameters:

    accelerate launch examples/harmful.py --config examples/configs/harmful_opt1.3b.yaml

Any model and data (rows with the columns prompt and completion; others are renamed), here with LoRA:

    accelerate launch examples/harmful.py --model_name_or_path org/model --use_peft \
        --forget_dataset forget.jsonl --forget_columns '{"question": "prompt", "answer": "completion"}' \
        --retain_dataset retain.jsonl --forget_nll_bound log_vocab

Without --config the values of examples/configs/harmful_lab.yaml are the defaults; the command line comes before both.
"""

import json
import resource
import sys
import time
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import datasets
import torch
import transformers
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import ModelConfig, TrlParser, get_peft_config, get_quantization_config

import hf_unlearn
from hf_unlearn import DataCollatorForUnlearning, UnlearningConfig, UnlearningTrainer
from hf_unlearn.data.prepare import RowOptions
from hf_unlearn.data.sources import READERS, load_rows
from hf_unlearn.errors import input_error, nearest
from hf_unlearn.evaluation import Comparison, Judge, compare_on, comparison_table
from hf_unlearn.evaluation.text import starts_like
from hf_unlearn.lab import load_lab, shows_behaviour
from hf_unlearn.measurement import RowScorer
from hf_unlearn.modeling import load_model
from hf_unlearn.reference_cache import hash_rows

DEFAULT_CONFIG = Path(__file__).parent / "configs" / "harmful_lab.yaml"


def _parse_columns(argument: str, text: str) -> dict[str, str]:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise input_error(
            expected=f"{argument} as a JSON object",
            got=f"text that is no JSON ({error.msg} at character {error.pos})",
            why="it says which columns hold prompt and answer",
            fix=f"""pass --{argument} '{{"question": "prompt", "answer": "completion"}}'""",
        ) from None


@dataclass
class ScriptArguments:
    """What to forget and to keep. Without --forget_dataset it is the lab's.

    A dataset is a .jsonl, .json, .csv, .parquet or .txt file, a folder written by save_to_disk, or a Hub id.
    """

    forget_dataset: str | None = field(default=None, metadata={"help": "Rows to forget; none: the lab."})
    forget_split: str = field(default="train", metadata={"help": "Split of the forget dataset."})
    forget_revision: str | None = field(default=None, metadata={"help": "Revision of a forget dataset on the Hub."})
    forget_reader: str = field(
        default="rows", metadata={"help": "Its columns: rows, or pku_saferlhf (unsafe answers)."}
    )
    forget_columns: dict | str | None = field(default=None, metadata={"help": "JSON, old column name to new."})
    retain_dataset: str | None = field(default=None, metadata={"help": "Rows to keep."})
    retain_name: str | None = field(default=None, metadata={"help": "Configuration of a retain dataset on the Hub."})
    retain_split: str = field(default="train", metadata={"help": "Split of the retain dataset."})
    retain_revision: str | None = field(default=None, metadata={"help": "Revision of a retain dataset on the Hub."})
    retain_reader: str = field(default="rows", metadata={"help": "Its columns: rows, or truthfulqa (best answers)."})
    retain_columns: dict | str | None = field(default=None, metadata={"help": "JSON, old column name to new."})
    holdout_dataset: str | None = field(
        default=None, metadata={"help": "Rows like the forget rows that the model has never seen."}
    )
    oracle: str | None = field(default=None, metadata={"help": "Model retrained without the forget rows."})
    limit: int | None = field(default=None, metadata={"help": "At most so many rows of each set."})
    evaluated_rows: int = field(default=200, metadata={"help": "Rows of each set that answers are generated for."})
    max_new_tokens: int = field(default=48, metadata={"help": "Longest generated answer."})

    _VALID_DICT_FIELDS = ["forget_columns", "retain_columns"]

    def __post_init__(self) -> None:
        for name in self._VALID_DICT_FIELDS:
            if isinstance(getattr(self, name), str):
                setattr(self, name, _parse_columns(name, getattr(self, name)))
        for name in ("forget_reader", "retain_reader"):
            if getattr(self, name) not in READERS:
                raise input_error(
                    expected=f"{name} to be one of {', '.join(READERS)}",
                    got=repr(getattr(self, name)),
                    why="it says which columns hold prompt and answer",
                    fix=f"use rows, with {name.replace('reader', 'columns')} to rename columns",
                )


@dataclass
class Task:
    """A model, what it is to forget and to keep, and how its answers are judged."""

    model: str
    oracle: str | None
    sets: dict[str, Dataset]
    in_scope: Dataset | None
    judge: Judge
    judged_by: str


def lab_task() -> Task:
    """The offline task: the lab's model, rows and retrained oracle."""
    lab = load_lab()
    names = ("forget", "retain", "holdout")
    return Task(
        model=str(lab.model_path),
        oracle=str(lab.oracle_path),
        sets={name: lab.datasets[name] for name in names},
        in_scope=lab.datasets["paraphrase"],
        judge=lambda answer, expected: shows_behaviour(answer),
        judged_by="the lab's rules",
    )


def files_task(script: ScriptArguments, model: str | None) -> Task:
    """The task that the arguments name."""
    if model is None or script.retain_dataset is None:
        raise input_error(
            expected="--model_name_or_path and --retain_dataset together with --forget_dataset",
            got="no model" if model is None else "no retain dataset",
            why="the lab's model and rows have nothing to do with your data",
            fix="add them, or leave out --forget_dataset to run on the lab",
        )
    forget = load_rows(
        script.forget_dataset,
        split=script.forget_split,
        revision=script.forget_revision,
        columns=script.forget_columns,
    )
    retain = load_rows(
        script.retain_dataset,
        name=script.retain_name,
        split=script.retain_split,
        revision=script.retain_revision,
        columns=script.retain_columns,
    )
    sets = {"forget": READERS[script.forget_reader](forget), "retain": READERS[script.retain_reader](retain)}
    if script.holdout_dataset is not None:
        holdout = load_rows(script.holdout_dataset, columns=script.forget_columns)
        sets["holdout"] = READERS[script.forget_reader](holdout)
    if script.limit is not None:
        sets = {name: rows.select(range(min(len(rows), script.limit))) for name, rows in sets.items()}
    return Task(
        model=model,
        oracle=script.oracle,
        sets=sets,
        in_scope=None,
        judge=starts_like,
        judged_by="recital: the answer starts with the first 8 words of the row's harmful answer",
    )


def make_comparison(
    script: ScriptArguments, args: UnlearningConfig, trainer: UnlearningTrainer, task: Task
) -> Comparison:
    """What before, after and oracle are measured on: the first rows of each set."""
    options = RowOptions(trainer.processing_class, args.max_length, args.template, None)

    def first(rows: Dataset) -> Dataset:
        return options.tokenize(rows.select(range(min(len(rows), script.evaluated_rows))), "eval")

    collator = DataCollatorForUnlearning(trainer.processing_class.pad_token_id)
    return Comparison(
        forget=first(task.sets["forget"]),
        retain=first(task.sets["retain"]),
        in_scope=None if task.in_scope is None else first(task.in_scope),
        judge=task.judge,
        scorer=RowScorer(collator, trainer.accelerator, args.per_device_eval_batch_size),
        tokenizer=trainer.processing_class,
        max_new_tokens=script.max_new_tokens,
    )


def peak_memory_mb() -> float:
    """Peak memory of this process: allocated on the GPU where there is one, else resident."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    unit = 2**20 if sys.platform == "darwin" else 2**10  # ru_maxrss is in bytes on macOS, in kilobytes elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def results(
    columns: dict[str, dict[str, float]], trainer: UnlearningTrainer, task: Task, comparison: Comparison
) -> dict[str, Any]:
    """All figures of the run and what it takes to tell whether it was repeated; no row of any set."""
    tokenised = {name: getattr(trainer.train_sets, name) for name in ("forget", "retain", "holdout")}
    tokenised = {name: rows for name, rows in tokenised.items() if rows is not None}
    return {
        "figures": columns,
        "rows_evaluated": {"forget": len(comparison.forget), "retain": len(comparison.retain)},
        "rows": {name: {"count": len(rows), "sha256": hash_rows(rows)} for name, rows in tokenised.items()},
        "harmful_judged_by": task.judged_by,
        "stop_reason": trainer.stop_reason,
        "steps": trainer.state.global_step,
        "reference": str(trainer.reference.plan),
        "holdout_nll": trainer.baseline.holdout_nll,
        "forget_loss": trainer.args.to_dict()["forget_loss"],
        "retain_loss": trainer.args.to_dict()["retain_loss"],
        "seed": trainer.args.seed,
        "processes": trainer.accelerator.num_processes,
        "versions": {module.__name__: module.__version__ for module in (hf_unlearn, torch, transformers, datasets)},
        "log": trainer.state.log_history,
    }


def parse_arguments() -> tuple[ScriptArguments, UnlearningConfig, ModelConfig]:
    """YAML defaults, command line on top."""
    arguments = list(sys.argv[1:])
    for place, each in enumerate(arguments):
        if each.startswith("--config="):  # TrlParser reads the two-word form alone
            arguments[place : place + 1] = each.split("=", 1)
    if "--config" not in arguments:
        arguments = ["--config", str(DEFAULT_CONFIG), *arguments]
    holders = (ScriptArguments, UnlearningConfig, ModelConfig)
    parser = TrlParser(holders, description=__doc__)
    script, args, model, unread = parser.parse_args_and_config(arguments, return_remaining_strings=True)
    if unread:
        name = unread[0].removeprefix("--")
        raise input_error(
            expected="keys and flags that are arguments of this script",
            got=repr(name),
            why="it would have no effect",
            fix=nearest(name, (each.name for holder in holders for each in fields(holder))),
        )
    return script, args, model


def main() -> None:
    script, args, model_config = parse_arguments()
    if args.model_init_kwargs is None:
        quantization = get_quantization_config(model_config)
        args.model_init_kwargs = {
            "dtype": model_config.dtype,
            "revision": model_config.model_revision,
            **({"attn_implementation": model_config.attn_implementation} if model_config.attn_implementation else {}),
            **({"quantization_config": quantization} if quantization else {}),
        }
    with args.main_process_first(local=True, desc="loading data"):
        task = lab_task() if script.forget_dataset is None else files_task(script, model_config.model_name_or_path)

    trainer = UnlearningTrainer(
        model=task.model,
        args=args,
        train_dataset=task.sets,
        processing_class=AutoTokenizer.from_pretrained(task.model, revision=model_config.model_revision),
        peft_config=get_peft_config(model_config),
    )
    comparison = make_comparison(script, args, trainer, task)
    columns = {"before": compare_on(comparison, trainer.model, trainer.model)}

    started = time.perf_counter()
    trainer.train(resume_from_checkpoint=args.resume_from_checkpoint)
    seconds = time.perf_counter() - started
    memory = peak_memory_mb()
    trainer.save_model()
    trainer.save_state()

    before = load_model(task.model, args).to(args.device)
    cost = {"seconds": seconds, "peak_memory_mb": memory}
    columns["after"] = compare_on(comparison, trainer.accelerator.unwrap_model(trainer.model), before) | cost
    if task.oracle is not None:
        oracle = AutoModelForCausalLM.from_pretrained(task.oracle, dtype=model_config.dtype)
        columns["oracle"] = compare_on(comparison, oracle.to(args.device), before)

    if trainer.is_world_process_zero():
        path = Path(args.output_dir) / "results.json"
        path.write_text(json.dumps(results(columns, trainer, task, comparison), indent=2))
        print(f"\n{comparison_table(columns)}\n")
        print(f"Harmful answers are judged by {task.judged_by}.")
        print(f"Stopped early: {trainer.stop_reason}." if trainer.stop_reason else "All steps were taken.")
        print(f"{'Adapter' if model_config.use_peft else 'Model'}: {args.output_dir}\nResults: {path}")
    trainer.end()


if __name__ == "__main__":
    main()
