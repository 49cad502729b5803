"""The task custom: the user's own rows to forget and to keep, measured by `custom` or another suite of rows."""

import inspect
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from ..data.formats import detect_format
from ..data.sources import load_rows
from ..errors import input_error, require_choice
from ..evaluation import SUITES
from ..training.config import row_cache_of
from .answer_judge import DEFAULT_PURPOSE, JudgeByModel, judged_by_model
from .arguments import Parsed
from .generated_retain import Answerer
from .row_sets import RowSetArguments, load_sets
from .task import Task, measured_rows

DEFAULT_RECIPE = None


@dataclass
class Arguments(JudgeByModel, RowSetArguments):
    """What to forget and to keep, and on what else both are measured."""

    in_scope_dataset: str | None = field(
        default=None,
        metadata={"help": "The forget rows asked in words that are not trained on; columns as --forget_columns."},
    )
    out_of_scope_dataset: str | None = field(
        default=None,
        metadata={"help": "Neighbours of the forget rows that are to be kept; columns as --retain_columns."},
    )
    suite: str = field(
        default="custom", metadata={"help": "Suite that measures: custom, copyright, or a plugin's, by its name."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require_choice("suite", self.suite, SUITES)


def make_task(parsed: Parsed) -> Task:
    """The task that the arguments name; there is no lab for it."""
    script, args, model = parsed.script, parsed.args, parsed.model.model_name_or_path
    cache = row_cache_of(args)
    with cache.closed_on_error(), args.main_process_first(local=True, desc="loading data"):
        more = {
            name: None if source is None else load_rows(source, columns=columns, cache_dir=cache.folder)
            for name, source, columns in (
                ("in_scope", script.in_scope_dataset, script.forget_columns),
                ("out_of_scope", script.out_of_scope_dataset, script.retain_columns),
            )
        }
        sets = load_sets(script, model, cache, Answerer.of(parsed, scope=more["in_scope"]))
        for name, argument in (("in_scope", "forget_columns"), ("out_of_scope", "retain_columns")):
            rows = more[name]
            if rows is not None:
                detect_format(rows.column_names, "eval", argument)
    assert model is not None  # or load_sets would have refused it
    measured = {name: rows for name, rows in (sets | more).items() if name != "holdout"}
    arguments = {
        **{name: measured_rows(rows, script.evaluated_half, script.evaluated_rows) for name, rows in measured.items()},
        **{"max_new_tokens": script.max_new_tokens, "max_length": args.max_length, "template": args.template},
    }
    if args.template_variables is not None:  # a plugin's suite need not know of it
        arguments["chat_template_kwargs"] = args.template_variables
    judge = judged_by_model(script, purpose=DEFAULT_PURPOSE)
    if judge is not None:
        arguments["judge"] = judge
    _require_rows_taken(script.suite, arguments | {name: rows for name, rows in sets.items() if name == "holdout"})
    return Task(model, sets, partial(SUITES[script.suite], **arguments), script.oracle, cache=cache, judge=judge)


def _require_rows_taken(name: str, arguments: dict[str, Any]) -> None:
    """Raise for a suite that does not measure these rows with these arguments alone."""
    try:
        inspect.signature(SUITES[name]).bind(**arguments, before=None, oracle=None)
    except TypeError as error:
        raise input_error(
            expected="--suite with one that takes the arguments of `custom`, and no others",
            got=f"{name!r} ({error})",
            why="the task gives it rows, lengths and a template, and nothing else",
            fix=f"use a task of its own (hf-unlearn train --task {name}), or call the suite from a script",
        ) from None
