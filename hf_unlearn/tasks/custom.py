"""The task custom: the user's own rows to forget and to keep, measured without a judge."""

from dataclasses import dataclass, field
from functools import partial

from ..data.sources import load_rows
from ..evaluation import custom
from .arguments import Parsed
from .row_sets import RowSetArguments, load_sets
from .task import Task, first

DEFAULT_RECIPE = None


@dataclass
class Arguments(RowSetArguments):
    """What to forget and to keep, and on what else both are measured."""

    in_scope_dataset: str | None = field(
        default=None, metadata={"help": "The forget rows asked in words that are not trained on."}
    )
    out_of_scope_dataset: str | None = field(
        default=None, metadata={"help": "Neighbours of the forget rows that are to be kept."}
    )


def make_task(parsed: Parsed) -> Task:
    """The task that the arguments name; there is no lab for it."""
    script, args, model = parsed.script, parsed.args, parsed.model.model_name_or_path
    with args.main_process_first(local=True, desc="loading data"):
        sets = load_sets(script, model)
        more = {
            name: None if source is None else load_rows(source, columns=columns)
            for name, source, columns in (
                ("in_scope", script.in_scope_dataset, script.forget_columns),
                ("out_of_scope", script.out_of_scope_dataset, script.retain_columns),
            )
        }
    assert model is not None  # or load_sets would have refused it
    suite = partial(
        custom,
        **{name: first(rows, script.evaluated_rows) for name, rows in (sets | more).items()},
        max_new_tokens=script.max_new_tokens,
        max_length=args.max_length,
        template=args.template,
    )
    return Task(model, sets, suite, script.oracle)
