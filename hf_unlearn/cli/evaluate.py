"""`hf-unlearn evaluate`: measures a saved model with the suite of a task."""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .argument_help import add_own_arguments
from .command import CommandParser, Verb, add_json, tell, words_of_task

if TYPE_CHECKING:  # at run time these take seconds to import
    from ..tasks.arguments import Parsed

_OWN = ("model", "name")
_SWITCH = ("true", "false", "yes", "no", "t", "f", "y", "n", "1", "0")  # what --use_cpu may be followed by
_OF_THE_RUN = ("--config", "--task", "--output_dir")


# What the short help lists of the task's arguments.
_MOST_USED = {
    "task": "where there is no RUN: harmful, copyright, ...",
    "suite": "alone with --model: muse, rwku, tofu, wmdp, ...",
    "model_name_or_path": "model before unlearning",
    "forget_dataset": "rows to forget: file, saved folder or Hub id",
    "retain_dataset": "rows to keep",
    "holdout_dataset": "rows never seen, for membership",
    "oracle": "model that has never seen the forget rows",
    "output_dir": "folder of the run that gets the result",
    "evaluated_rows": "rows of each set that are measured",
    "max_new_tokens": "longest generated answer",
    "per_device_eval_batch_size": "rows at a time",
    "use_cpu": "stay on the CPU where there is an accelerator",
}


def _arguments(parser: CommandParser) -> None:
    parser.usage = (
        "hf-unlearn evaluate RUN [--model FOLDER] [--name NAME] [--json]\n"
        "                           [--ARGUMENT VALUE ...]\n"
        "       hf-unlearn evaluate --config RECIPE [--model FOLDER] ...\n"
        "       hf-unlearn evaluate --suite SUITE --model MODEL ..."
    )
    parser.epilog = (
        "RUN, the output folder of a run of hf-unlearn train, has rows, suite and arguments; others beside it come on "
        "top. Without RUN a recipe and its arguments name them, and output_dir. "
        "Results of the run that lie there (before, oracle) are compared with; its record, card and plots get the new "
        "one. With a suite alone the other arguments are its own (docs/evaluation.md)."
    )
    parser.add_argument("run", nargs="?", metavar="RUN", help="output folder of a run, in place of --config")
    parser.add_argument("--config", metavar="RECIPE", help="YAML file, or a packaged recipe")
    parser.add_argument("--model", metavar="FOLDER", help="what to measure (default: the run's own)")
    parser.add_argument("--name", metavar="NAME", help="of the result: before, oracle, ... (default: after)")
    add_json(parser)
    parser.add_help_all()
    add_own_arguments(parser, _MOST_USED)


def _run(args: argparse.Namespace) -> None:
    suite, words = _suite_alone(args.given)
    if suite is not None:
        return _run_suite(args, suite, words)
    from ..evaluation import comparison_table
    from ..results.answers_table import answers_table
    from ..results.schema import as_json
    from ..results.verdict import MODELS
    from ..tasks import make_task
    from ..tasks.evaluate_saved import evaluate_saved, verdict_after

    task_name, parsed = _parsed(args)
    name = args.name or "after"
    task = make_task(task_name, parsed)
    try:
        result = evaluate_saved(task, parsed, name, args.model)
    finally:
        if task.cache is not None:
            task.cache.close()
    warnings = "".join(f"\nWarning: {warning}" for warning in result.warnings)
    text, data = comparison_table({name: result}) + warnings, result.to_dict()
    judged = verdict_after(parsed) if name in MODELS else None  # of others it says nothing
    if judged is not None:
        text, data = f"{text}\n\n{answers_table(judged.answers)}", data | {"answers": as_json(judged.answers)}
    tell(args, text, data)


def _suite_alone(given: Sequence[str]) -> tuple[str | None, list[str]]:
    """The suite that is named where neither a run nor a recipe nor a task is, and the other words."""
    run, words = _split_run(words_of_task(given, ("name",)))
    if run is not None or any(word.partition("=")[0] in ("--config", "--task") for word in words):
        return None, words
    suite, rest, left = None, [], iter(words)
    for word in left:
        flag, is_whole, value = word.partition("=")
        if flag == "--suite":
            suite = value if is_whole else next(left, "")
        else:
            rest.append(word)
    return suite, rest


def _run_suite(args: argparse.Namespace, suite: str, words: list[str]) -> None:
    from ..evaluation import comparison_table
    from ..plugins import load_plugins
    from ..tasks.named_suite import parse_named
    from .train import plugins_of

    load_plugins(plugins_of(words))
    name = args.name or "after"
    evaluation, made = parse_named(suite, words)
    result = evaluation(made, name)
    warnings = "".join(f"\nWarning: {warning}" for warning in result.warnings)
    tell(args, comparison_table({name: result}) + warnings, result.to_dict())


def _parsed(args: argparse.Namespace) -> "tuple[str, Parsed]":
    """The task and its arguments: of a run's folder, or of a recipe."""
    run, words = _split_run(words_of_task(args.given, _OWN))
    if run is None:
        from ..tasks import parse_task
        from .train import task_of

        task, rest = task_of(words)
        return task, parse_task(task, rest)
    from ..errors import input_error
    from ..tasks.command_file import read_command

    refused = [word for word in words if word.partition("=")[0] in _OF_THE_RUN]
    if refused:
        raise input_error(
            expected=f"a run's folder alone, or {refused[0]} alone",
            got=f"{refused[0]} beside a run",
            why="the folder says which rows it was about, and its result goes there",
            fix=f"leave out one of them: hf-unlearn evaluate {run}",
        )
    return read_command(run, *words)


def _split_run(words: list[str]) -> tuple[str | None, list[str]]:
    """The run's folder, which comes first or after --use_cpu, and the other words.

    Elsewhere a word may be the value of a flag that only the task's parser knows.
    """
    for place, word in enumerate(words):
        if not word.startswith("-"):
            is_switch = place > 0 and word.lower() in _SWITCH
            return (None, words) if is_switch else (word, words[:place] + words[place + 1 :])
        if word != "--use_cpu":
            break
    return None, words


EVALUATE = Verb("measure a saved model with the suite of a task", _arguments, _run, open=True)
