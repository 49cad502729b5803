"""The task privacy (TOFU): the model forgets what it knows of some people and keeps what it knows of others."""

from dataclasses import dataclass, field
from functools import partial
from typing import Any

from datasets import Dataset

from ..data.holdout_split import evaluated_half
from ..data.sources import load_rows
from ..data.tofu import load_tofu, training_sets
from ..errors import input_error
from ..evaluation import tofu
from ..lab import load_lab
from .arguments import Parsed
from .fit_first import FitArguments, described, fit, require_trainable
from .phases.checkpoint import starts_from_checkpoint
from .task import RETRAINED, SuiteOf, Task, first, require_unused

DEFAULT_RECIPE = "privacy_lab"
# TOFU's names of sets -> the lab's
LAB_SETS = {
    "forget10_perturbed": "forget_perturbed",
    "retain_perturbed": "retain_perturbed",
    "real_authors_perturbed": "real_authors_perturbed",
    "world_facts_perturbed": "world_facts_perturbed",
    "holdout": "holdout",
}


@dataclass
class Arguments(FitArguments):
    """Whom to forget. Without --source it is the lab's people."""

    fit: bool = field(
        default=False,
        metadata={
            "help": "Fit a model that has never seen these people to all of them first, and the same model to those "
            "who are kept, as the oracle."
        },
    )
    source: str | None = field(
        default=None, metadata={"help": "TOFU: its id on the Hub, or a folder of its JSON files; none: the lab."}
    )
    split: str = field(default="forget10", metadata={"help": "forget01, forget05 or forget10."})
    source_revision: str | None = field(default=None, metadata={"help": "Revision of a source on the Hub."})
    holdout_dataset: str | None = field(
        default=None, metadata={"help": "Questions and answers about people that no model has seen."}
    )


def make_task(parsed: Parsed) -> Task:
    """The lab's task, or that of the arguments."""
    with parsed.args.main_process_first(local=True, desc="loading data"):
        task = _lab_task(parsed) if parsed.script.source is None else _tofu_task(parsed)
    if parsed.script.fit:
        _fit(task, parsed)
    if task.oracle is None:
        task.notes.append("Without --oracle, a model trained without the forget rows, there is no forget quality.")
    return task


def _suite_of(parsed: Parsed, source: str | dict[str, Dataset], **options: Any) -> SuiteOf:
    script, args = parsed.script, parsed.args
    if script.evaluated_half is not None:
        source = _half_of(source, script.evaluated_half, **options)
        options.pop("revision", None)
    return partial(
        tofu,
        source,
        **options,
        limit=script.evaluated_rows,
        max_new_tokens=script.max_new_tokens,
        max_length=args.max_length,
        template=args.template,
        chat_template_kwargs=args.template_variables,
    )


def _half_of(
    source: str | dict[str, Dataset], half: str, split: str = "forget10", revision: str | None = None
) -> dict[str, Dataset]:
    """A half of the rows of each set, by the names under which the suite looks for them. Unseen rows come later."""
    data = load_tofu(source, split, revision=revision)
    sets = {
        f"{split}_perturbed": data.forget,
        "retain_perturbed": data.retain,
        "real_authors_perturbed": data.real_authors,
        "world_facts_perturbed": data.world_facts,
    }
    return {name: evaluated_half(rows, half) for name, rows in sets.items()}


def _lab_task(parsed: Parsed) -> Task:
    """The offline task: the lab's people, and the model retrained without those who are to be forgotten."""
    script, args = parsed.script, parsed.args
    require_unused(
        "source",
        model_name_or_path=None if script.continue_from else parsed.model.model_name_or_path,
        split=None if script.split == "forget10" else script.split,
        source_revision=script.source_revision,
        holdout_dataset=script.holdout_dataset,
        oracle=script.oracle,
        template=args.template,
        fit=script.fit or None,
    )
    checkpoint = starts_from_checkpoint(script.phases)
    lab = load_lab(world="people", checkpoint=checkpoint)
    args.template = lab.template
    source = {name: lab.datasets[own] for name, own in LAB_SETS.items()}
    names = ("forget", "retain", "holdout")
    sets = {name: lab.datasets[name] for name in names}
    limited = {name: rows if script.limit is None else first(rows, script.limit) for name, rows in sets.items()}
    suite = _suite_of(parsed, source)
    start = str(lab.checkpoint_path) if checkpoint else None
    return Task(str(lab.model_path), limited, suite, str(lab.oracle_path), RETRAINED, from_lab=True, checkpoint=start)


def _tofu_task(parsed: Parsed) -> Task:
    """The task that the arguments name."""
    script, model = parsed.script, parsed.model.model_name_or_path
    if model is None:
        raise input_error(
            expected="--model_name_or_path together with --source",
            got="no model",
            why="the lab's model has never seen these people",
            fix="add one that was trained on TOFU (or any, with --fit true), or leave out --source to run on the lab",
        )
    holdout = None if script.holdout_dataset is None else load_rows(script.holdout_dataset)
    sets = training_sets(script.source, script.split, revision=script.source_revision)
    data = load_tofu(script.source, script.split, holdout=holdout, revision=script.source_revision)
    if data.holdout is not None:
        names = {"question": "prompt", "answer": "completion"}
        sets["holdout"] = data.holdout.select_columns(list(names)).rename_columns(names)
    suite = _suite_of(parsed, script.source, split=script.split, revision=script.source_revision)
    limited = {name: rows if script.limit is None else first(rows, script.limit) for name, rows in sets.items()}
    return Task(model, limited, suite, script.oracle)


def _fit(task: Task, parsed: Parsed) -> None:
    """Turn a task's model into one that knows all the people, and its oracle into one that knows those who stay."""
    script, args, revision, base = parsed.script, parsed.args, parsed.model.model_revision, task.model
    require_trainable(base, revision, args, task.sets)
    forget, retain = task.sets["forget"], task.sets["retain"]
    if task.oracle is None:
        task.oracle = fit("fitted-oracle", script, args, base, [retain], revision)
        task.oracle_is = "the same model, fitted to the people who are kept alone"
    task.model = fit("fitted", script, args, base, [forget, retain], revision)
    task.fitted_from, task.fitted_origin = described(base)
    task.checkpoint = base
