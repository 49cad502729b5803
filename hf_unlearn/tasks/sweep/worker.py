"""The processes of a sweep: `prepare` measures model and oracle, `trial` trains and measures, `report` is a whole run.

job.py starts them. Each function is told what job.json of its folder says.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trl import get_peft_config

from ...data.holdout_split import REPORTING
from ...errors import input_error
from ...evaluation import load_result
from ...model.fingerprints import hash_parts
from ...model.loading import load_tokenizer
from ...plugins import load_plugins
from ...results.files import atomic_write_text, read_json
from ...training.model_setup import load_model, move_unless_quantized
from ...training.trainer import UnlearningTrainer
from .. import make_task, parse_values, run_task
from ..arguments import Parsed
from ..evaluate_saved import fitted_to_holdout
from ..preflight import preflight
from ..run import RunEvaluator, measure_before
from ..shown_answers import ShownAnswers
from ..task import Task, require_model, require_unseen, suite_of

PREPARED_FILE = "prepared.json"


def prepare(folder: Path, job: dict[str, Any]) -> None:
    """Check rows, model and arguments; fit the model where the task fits one; measure it and its oracle.

    What an earlier start of the same sweep has left is kept.

    Raises:
        ValueError: what a run would refuse, rows too few for two halves, or other rows than before.
    """
    task, parsed = _task_of(job)
    rows = {name: hash_parts({"rows": [dict(row) for row in rows]}) for name, rows in sorted(task.sets.items())}
    file = folder / PREPARED_FILE
    if file.is_file():
        if read_json(file)["rows"] != rows:
            raise input_error(
                expected=f"the rows that the sweep in {folder.parent.name} was begun with",
                got="others",
                why="runs of different rows cannot be compared",
                fix="name another --output_dir, or put the rows back",
            )
        return
    _require_other_half(job)
    measure = _evaluator(task, parsed)
    results = measure_before(measure, parsed)
    preflight(measure.trainer, task.sets, results["before"], results.get("oracle"), force=parsed.script.force)
    counts = {name: found["count"] for name, found in results["before"].rows.items()}
    prepared = {
        "rows": rows,
        "measured": counts,
        "oracle": "oracle" in results,
        "levels": parsed.args.levels is not None,
    }
    atomic_write_text(file, json.dumps(prepared, indent=2) + "\n")


def trial(folder: Path, job: dict[str, Any]) -> None:
    """Train with some values and measure what came of it, beside what was prepared."""
    task, parsed = _task_of(job)
    measure = _evaluator(task, parsed)
    trainer = measure.trainer
    trainer.train()
    prepared = Path(job["prepared"])
    before, oracle = (prepared / f"evaluation_{name}.json" for name in ("before", "oracle"))
    fluent = move_unless_quantized(load_model(task.model, parsed.args), parsed.args.device)
    oracle_result = load_result(oracle) if task.oracle is not None else None
    measure("after", trainer.model, fluent, before=load_result(before), oracle=oracle_result)
    atomic_write_text(folder / "end.json", json.dumps({"stop_reason": trainer.stop_reason}) + "\n")


def report(folder: Path, job: dict[str, Any]) -> None:
    """A run like those of `hf-unlearn train`, with record, card and plots."""
    load_plugins(job["values"].get("plugins"))
    trainer = run_task(job["task"], ["--config", job["config"], *job["words"]])
    trainer.accelerator.end_training()


def _task_of(job: dict[str, Any]) -> tuple[Task, Parsed]:
    load_plugins(job["values"].get("plugins"))
    parsed = parse_values(job["task"], job["values"], job["words"])
    return make_task(job["task"], parsed), parsed


def _evaluator(task: Task, parsed: Parsed) -> RunEvaluator:
    for model in (task.model, task.oracle):
        require_model(model)
    require_unseen(parsed.script.task or "", task, parsed.args)
    trainer = UnlearningTrainer(
        model=task.model,
        args=parsed.args,
        train_dataset=task.sets,
        processing_class=load_tokenizer(task.model, parsed.model.model_revision, parsed.args.init_kwargs),
        peft_config=get_peft_config(parsed.model),
    )
    return RunEvaluator(task, parsed.script, trainer, ShownAnswers([], trainer, None))


def _require_other_half(job: dict[str, Any]) -> None:
    """Raise where there are rows to choose by, but none to report on."""
    task, parsed = _task_of(job | {"words": [*job["words"], "--evaluated_half", REPORTING]})
    unfitted = fitted_to_holdout(parsed.args)
    suite_of(task, unfitted=unfitted, count=parsed.script.evaluated_rows, half=REPORTING)


JOBS: dict[str, Callable[[Path, dict[str, Any]], None]] = {"prepare": prepare, "trial": trial, "report": report}
