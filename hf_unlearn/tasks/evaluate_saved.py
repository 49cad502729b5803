"""Evaluates a saved model with a task's suite and keeps the result in the folder of its run."""

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from accelerate import Accelerator

from ..errors import input_error, value_error
from ..evaluation import EvaluationResult, evaluate, load_result
from ..model.loading import load_tokenizer
from ..progress import phase
from ..results.adapter_config import ADAPTER_CONFIG, read_adapter_config
from ..results.record import RECORD_FILE, RunRecord, load_record
from ..results.report import read_run
from ..results.verdict import Verdict, verdict
from ..training.config import UnlearningConfig
from ..training.levels.setting import splits_holdout
from ..training.model_setup import load_model, move_unless_quantized
from .arguments import Parsed
from .saved_run import load_saved, require_weights, update_record
from .task import NAMED_ORACLE, Task, require_model, suite_of

_COMPARED = ("before", "oracle")


def evaluate_saved(task: Task, parsed: Parsed, name: str, model: str | None) -> EvaluationResult:
    """Measure a model and keep its result in the run's folder, in its record, card and plots.

    Args:
        task: whose suite measures.
        parsed: its arguments; `output_dir` is the run's folder.
        name: what the result is called: "before", "after", "oracle" or another word.
        model: folder or Hub id; None takes the task's model for "before", its oracle for "oracle", the run's folder
            for others.

    Raises:
        ValueError: there is no such model.
    """
    folder = Path(parsed.args.output_dir)
    _require_name(name, model, folder)
    chosen = model or {"before": task.model, "oracle": task.oracle}.get(name, str(folder))
    if chosen is None:
        raise input_error(
            expected="--oracle, or --model with the oracle",
            got="neither",
            why="there is no model to measure",
            fix="name a model that has never seen the forget rows",
        )
    require_model(chosen)
    if chosen == str(folder):
        require_weights(folder)
    if (Path(chosen) / ADAPTER_CONFIG).is_file():
        read_adapter_config(chosen)
    if (folder / RECORD_FILE).is_file():
        read_run(folder)  # the result is put in there: whether it can be is asked before anything is measured
    others = {
        other: load_result(folder / f"evaluation_{other}.json")
        for other in _COMPARED
        if other != name and (folder / f"evaluation_{other}.json").is_file()
    }
    result = measure_saved(task, parsed, name, chosen, others)
    if parsed.args.process_index == 0:
        result.save(folder / f"evaluation_{name}.json")
        oracle_is = task.oracle_is if model is None else NAMED_ORACLE
        update_record(folder, partial(_put, name, result, oracle_is))
    return result


def measure_saved(
    task: Task, parsed: Parsed, name: str, model: str, others: Mapping[str, EvaluationResult]
) -> EvaluationResult:
    """Measure a saved model as `evaluate_saved` does, and keep nothing.

    Args:
        task: whose suite measures.
        parsed: its arguments; `output_dir` is the run's folder.
        name: what the result is called.
        model: folder or Hub id.
        others: results on the models before and oracle, which it is compared with.
    """
    args = parsed.args
    accelerator = Accelerator(cpu=args.use_cpu)
    fluent = move_unless_quantized(load_model(task.model, args), accelerator.device)
    with phase(name):
        return evaluate(
            move_unless_quantized(load_saved(model, parsed), accelerator.device),
            load_tokenizer(task.model, parsed.model.model_revision, args.init_kwargs),
            suite_of(
                task,
                unfitted=fitted_to_holdout(parsed.args),
                count=parsed.script.evaluated_rows,
                half=parsed.script.evaluated_half,
                before=others.get("before") if name != "oracle" else None,
                oracle=others.get("oracle"),
            ),
            batch_size=args.per_device_eval_batch_size,
            accelerator=accelerator,
            fluency_model=fluent,
            seed=args.seed,
            partial=None if parsed.script.partial_dir is None else Path(parsed.script.partial_dir) / name,
        )


def verdict_after(parsed: Parsed) -> Verdict | None:
    """The verdict on the run that an evaluation went into; None where its folder has no record of a run."""
    folder = Path(parsed.args.output_dir)
    return verdict(load_record(folder)) if (folder / RECORD_FILE).is_file() else None


def fitted_to_holdout(args: UnlearningConfig) -> bool:
    """Whether the run in the folder read holdout rows: by its record, as an evaluation is not told how it trained."""
    folder = Path(args.output_dir)
    if splits_holdout(args) or not (folder / RECORD_FILE).is_file():
        return splits_holdout(args)
    run = load_record(folder)
    if any(phase.reads_holdout for phase in run.phases):
        return True
    calibrated = run.levels is not None and run.levels.calibration_rows > 0
    return calibrated or any(term.side == "anchor" for term in run.objective.terms)


def _put(name: str, result: EvaluationResult, oracle_is: str, record: RunRecord) -> None:
    record.evaluations[name] = result
    if name == "oracle":
        record.oracle = oracle_is


def _require_name(name: str, model: str | None, folder: Path) -> None:
    """Raise for a name that is no word, and for the name of the run's own model given to another one."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name):
        raise value_error("--name", "a word of small letters, digits, - and _", name, "for example after-relearning")
    if name == "after" and model is not None and Path(model).resolve() != folder.resolve():
        raise input_error(
            expected="--name with another word than after, for another model than the run's own",
            got=f"--model {model}",
            why="its figures would stand on the card as those of the weights beside it",
            fix="pass --name, for example --name other",
        )
