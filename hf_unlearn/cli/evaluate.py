"""`hf-unlearn evaluate`: measures a saved model with the suite of a task."""

import argparse

from .argument_help import add_own_arguments
from .command import Verb, add_json, tell, words_of_task

_OWN = ("model", "name")


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "hf-unlearn evaluate --config RECIPE [--model FOLDER] [--name NAME] [--json] [--ARGUMENT VALUE ...]"
    parser.epilog = (
        "The recipe and its arguments are those of the run (hf-unlearn train): they name rows, suite and output_dir. "
        "Results of the run that lie there (before, oracle) are compared with; its record, card and plots get the new "
        "one."
    )
    parser.add_argument("--config", metavar="RECIPE", help="YAML file, or a packaged recipe")
    parser.add_argument("--model", metavar="FOLDER", help="model or adapter to measure (default: the run's own)")
    parser.add_argument(
        "--name", metavar="NAME", help="what the result is called: before, after, oracle, ... (default: after)"
    )
    add_json(parser)
    add_own_arguments(parser)


def _run(args: argparse.Namespace) -> None:
    from ..evaluation import comparison_table
    from ..tasks import make_task, parse_task
    from ..tasks.evaluate_saved import evaluate_saved
    from .train import task_of

    task_name, rest = task_of(words_of_task(args.given, _OWN))
    parsed = parse_task(task_name, rest)
    name = args.name or "after"
    result = evaluate_saved(make_task(task_name, parsed), parsed, name, args.model)
    warnings = "".join(f"\nWarning: {warning}" for warning in result.warnings)
    tell(args, comparison_table({name: result}) + warnings, result.to_dict())


EVALUATE = Verb("measure a saved model with the suite of a task", _arguments, _run, open=True)
