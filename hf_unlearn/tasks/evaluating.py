"""A saved model measured by a task's suite, beside what its run measured already. It trains nothing."""

from pathlib import Path
from typing import Any

from accelerate import Accelerator
from peft import AutoPeftModelForCausalLM
from transformers import AutoModelForCausalLM, AutoTokenizer

from ..errors import input_error
from ..evaluation import EvaluationResult, evaluate, load_result
from ..hub import ADAPTER_CONFIG, CARD_FILE, plots_of
from ..model_card import render_card
from ..modeling import load_model, placed
from ..record import RECORD_FILE, load_record
from ..report import read_run, write_plots
from .arguments import Parsed
from .task import Task, require_model

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
    args, folder = parsed.args, Path(parsed.args.output_dir)
    chosen = model or {"before": task.model, "oracle": task.oracle}.get(name, str(folder))
    if chosen is None:
        raise input_error(
            expected="--oracle, or --model with the oracle",
            got="neither",
            why="there is no model to measure",
            fix="name a model that has never seen the forget rows",
        )
    require_model(chosen)
    others = {
        each: load_result(folder / f"evaluation_{each}.json")
        for each in _COMPARED
        if each != name and (folder / f"evaluation_{each}.json").is_file()
    }
    accelerator = Accelerator(cpu=args.use_cpu)
    fluent = placed(load_model(task.model, args), accelerator.device)
    result = evaluate(
        placed(_loaded(chosen, parsed), accelerator.device),
        AutoTokenizer.from_pretrained(task.model, revision=parsed.model.model_revision),
        task.suite(before=others.get("before") if name != "oracle" else None, oracle=others.get("oracle")),
        batch_size=args.per_device_eval_batch_size,
        accelerator=accelerator,
        fluency_model=fluent,
        seed=args.seed,
        partial=None if parsed.script.partial_dir is None else Path(parsed.script.partial_dir) / name,
    )
    if accelerator.is_main_process:
        result.save(folder / f"evaluation_{name}.json")
        _keep(folder, name, result)
    return result


def _loaded(name: str, parsed: Parsed) -> Any:
    """A model or an adapter with its base, as the run loads its own."""
    loading = {"dtype": "float32", **parsed.args.init_kwargs}
    if name != parsed.model.model_name_or_path:
        loading["revision"] = None
    if (Path(name) / ADAPTER_CONFIG).is_file():
        loading.pop("revision")  # PEFT would take the adapter's for the base's
        return AutoPeftModelForCausalLM.from_pretrained(name, **loading)
    return AutoModelForCausalLM.from_pretrained(name, **loading)


def _keep(folder: Path, name: str, result: EvaluationResult) -> None:
    """Put a result into the record of the run in a folder, where there is one."""
    if not (folder / RECORD_FILE).is_file():
        return
    record = load_record(folder)
    record.evaluations[name] = result
    record.save(folder)
    write_plots(read_run(folder), folder)
    (folder / CARD_FILE).write_text(render_card(record, plots=plots_of(folder)), encoding="utf-8")
