"""What the examples share: arguments, one training run between two evaluations, one table, one results.json."""

import json
import re
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import datasets
import torch
import transformers
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.trainer_utils import get_last_checkpoint
from trl import ModelConfig, TrlParser, get_peft_config, get_quantization_config

import hf_unlearn
from hf_unlearn import UnlearningConfig, UnlearningTrainer
from hf_unlearn.errors import input_error, nearest
from hf_unlearn.evaluation import EvaluationResult, Suite, comparison_table, evaluate
from hf_unlearn.fingerprints import hash_rows, hash_weights
from hf_unlearn.modeling import load_model

# A suite, given the results to compare with: `oracle` and `before`, None where there is none yet.
SuiteOf = Callable[..., Suite]


@dataclass
class RunArguments:
    """Arguments of every example."""

    oracle: str | None = field(default=None, metadata={"help": "Model that has never seen the forget rows."})
    limit: int | None = field(default=None, metadata={"help": "At most so many rows of each set."})
    evaluated_rows: int = field(default=200, metadata={"help": "Rows of each set that the model is measured on."})
    max_new_tokens: int = field(default=48, metadata={"help": "Longest generated answer."})
    partial_dir: str | None = field(
        default=None,
        metadata={"help": "Folder for unfinished evaluations, from which a killed run goes on. It holds answers."},
    )


@dataclass
class Task:
    """A model, what it is to forget and to keep, and what it is measured by.

    Attributes:
        model: name or folder of the model before unlearning.
        sets: training sets by role.
        suite: makes the suite.
        oracle: name or folder of a model that has never seen the forget rows, or None.
        notes: lines for people below the table.
    """

    model: str
    sets: dict[str, Dataset]
    suite: SuiteOf
    oracle: str | None = None
    notes: list[str] = field(default_factory=list)


def first(rows: Dataset | None, count: int | None) -> Dataset | None:
    """The first rows of a set; all of them where count is None."""
    return rows if rows is None or count is None else rows.select(range(min(len(rows), count)))


def require_unused(data_flag: str, **given: Any) -> None:
    """Raise where arguments came that only data of one's own has a use for, and the lab is about to be taken.

    Args:
        data_flag: names the data that is missing.
        given: arguments by name, None where they were left out.
    """
    unused = [name for name, value in given.items() if value is not None]
    if unused:
        raise input_error(
            expected=f"--{data_flag} together with --{unused[0]}",
            got=f"--{unused[0]} alone",
            why="without the data it is the lab that runs, which has no use for it",
            fix=f"add --{data_flag}, or leave --{unused[0]} out to run on the lab",
        )


def parse_arguments(script: type, default_config: Path, description: str | None) -> tuple[Any, Any, ModelConfig]:
    """(script arguments, UnlearningConfig, ModelConfig): YAML defaults, command line on top.

    Raises:
        ValueError: a key or flag that none of the three has.
    """
    arguments = list(sys.argv[1:])
    for place, each in enumerate(arguments):
        if each.startswith("--config="):  # TrlParser reads the two-word form alone
            arguments[place : place + 1] = each.split("=", 1)
    if "--config" not in arguments:
        arguments = ["--config", str(default_config), *arguments]
    holders = (script, UnlearningConfig, ModelConfig)
    parser = TrlParser(holders, description=description)
    found, args, model, unread = parser.parse_args_and_config(arguments, return_remaining_strings=True)
    if unread:
        name = unread[0].removeprefix("--")
        raise input_error(
            expected="keys and flags that are arguments of this script",
            got=repr(name),
            why="it would have no effect",
            fix=nearest(name, (each.name for holder in holders for each in fields(holder))),
        )
    if args.model_init_kwargs is None:
        args.model_init_kwargs = _loading(model)
    return found, args, model


def _loading(model: ModelConfig) -> dict[str, Any]:
    quantization = get_quantization_config(model)
    return {
        "dtype": model.dtype,
        "revision": model.model_revision,
        **({"attn_implementation": model.attn_implementation} if model.attn_implementation else {}),
        **({"quantization_config": quantization} if quantization else {}),
    }


def require_model(name: str | None) -> None:
    """Raise for what is neither a folder nor written like the id of a model on the Hub."""
    if name is None or Path(name).is_dir() or re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name):
        return
    raise input_error(
        expected="a model's folder, or its id on the Hub (name, or owner/name)",
        got=f"{name!r}, where there is no folder",
        why="there is nothing to load",
        fix=f"check the path; looked for {Path(name).absolute()}",
    )


def checkpoint_of(args: UnlearningConfig) -> str | None:
    """The folder to go on from: the one that is named, or the last one of the output folder for "true".

    Raises:
        ValueError: there is none.
    """
    asked = args.resume_from_checkpoint
    if asked is None or str(asked).lower() == "false":
        return None
    last = str(asked).lower() == "true"
    found = get_last_checkpoint(args.output_dir) if last and Path(args.output_dir).is_dir() else asked
    if found is None or not Path(found).is_dir():
        raise input_error(
            expected="--resume_from_checkpoint with the folder of a checkpoint, or true for the last one",
            got=f"{asked!r}, where there is none",
            why="the run would start anew, or fail after the first evaluation",
            fix=f"look for checkpoint-<step> in {args.output_dir}, or leave the argument out",
        )
    return str(found)


def peak_memory_mb() -> float:
    """Peak memory of this process: allocated on the GPU where there is one, else resident."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    unit = 2**20 if sys.platform == "darwin" else 2**10  # ru_maxrss is in bytes on macOS, in kilobytes elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


@dataclass
class Measurement:
    """How every model of a run is measured: the same suite, the same fluency model."""

    task: Task
    script: RunArguments
    trainer: UnlearningTrainer

    def __call__(
        self,
        name: str,
        model: Any,
        fluency_model: Any,
        before: EvaluationResult | None = None,
        oracle: EvaluationResult | None = None,
    ) -> EvaluationResult:
        """The result of one model, written to evaluation_<name>.json."""
        partial = None
        if self.script.partial_dir is not None:
            # Named after the weights too: what an earlier run found of another model is left alone.
            weights = hash_weights(self.trainer.accelerator.unwrap_model(model))[:12]
            partial = Path(self.script.partial_dir) / f"{name}-{weights}"
        result = evaluate(
            model,
            self.trainer.processing_class,
            self.task.suite(before=before, oracle=oracle),
            batch_size=self.trainer.args.per_device_eval_batch_size,
            accelerator=self.trainer.accelerator,
            fluency_model=fluency_model,
            seed=self.trainer.args.seed,
            partial=partial,
        )
        if self.trainer.is_world_process_zero():
            result.save(Path(self.trainer.args.output_dir) / f"evaluation_{name}.json")
        return result


def run(task: Task, script: RunArguments, args: UnlearningConfig, model_config: ModelConfig) -> None:
    """Measure, unlearn, measure again; save the model, print the table and write results.json."""
    checkpoint = checkpoint_of(args)
    for name in (task.model, task.oracle):
        require_model(name)
    trainer = UnlearningTrainer(
        model=task.model,
        args=args,
        train_dataset=task.sets,
        processing_class=AutoTokenizer.from_pretrained(task.model, revision=model_config.model_revision),
        peft_config=get_peft_config(model_config),
    )
    measure = Measurement(task, script, trainer)
    oracle = None
    if task.oracle is not None:
        same = task.oracle == model_config.model_name_or_path
        loading = {**args.model_init_kwargs, "revision": model_config.model_revision if same else None}
        model = AutoModelForCausalLM.from_pretrained(task.oracle, **loading).to(args.device)
        oracle = measure("oracle", model, trainer.model)
        del model
    before = measure("before", trainer.model, trainer.model, oracle=oracle)

    started = time.perf_counter()
    trainer.train(resume_from_checkpoint=checkpoint)
    cost = {"seconds": time.perf_counter() - started, "peak_memory_mb": peak_memory_mb()}
    trainer.save_model()
    trainer.save_state()

    fluent = load_model(task.model, args).to(args.device)
    after = measure("after", trainer.model, fluent, before=before, oracle=oracle)
    results = {"before": before, "after": after} | ({} if oracle is None else {"oracle": oracle})
    if trainer.is_world_process_zero():
        path = Path(args.output_dir) / "results.json"
        path.write_text(json.dumps(_record(results, cost, trainer), indent=2))
        print(f"\n{comparison_table(results, {'after': cost})}\n\n95% intervals in brackets.")
        for line in (*task.notes, *(f"Warning, after: {warning}" for warning in after.warnings)):
            print(line)
        print(f"Stopped early: {trainer.stop_reason}." if trainer.stop_reason else "All steps were taken.")
        print(f"{'Adapter' if model_config.use_peft else 'Model'}: {args.output_dir}\nResults: {path}")
    trainer.end()


def _figures(result: EvaluationResult) -> dict[str, Any]:
    """The metrics' values, as JSON takes them."""
    return {name: metric["value"] for name, metric in result.to_dict()["metrics"].items()}


def _record(results: dict[str, EvaluationResult], cost: dict[str, float], trainer: UnlearningTrainer) -> dict:
    """All figures of the run and what it takes to tell whether it was repeated; no row of any set."""
    tokenised = {name: getattr(trainer.train_sets, name) for name in ("forget", "retain", "holdout")}
    tokenised = {name: rows for name, rows in tokenised.items() if rows is not None}
    return {
        "figures": {name: _figures(result) for name, result in results.items()},
        "evaluations": {name: f"evaluation_{name}.json" for name in results},
        "cost": cost,
        "rows": {name: {"count": len(rows), "sha256": hash_rows(rows)} for name, rows in tokenised.items()},
        "rows_evaluated": {name: rows["count"] for name, rows in results["before"].rows.items()},
        "settings": results["before"].settings,
        "warnings": {name: result.warnings for name, result in results.items()},
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
