"""`hf-unlearn edit`: a run of one edit, measured before and after, with a card and plots."""

import argparse
import json
from collections.abc import Sequence

from .command import Verb, words_of_task


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = (
        "hf-unlearn edit --config RECIPE [--edit NAME] [--checkpoint MODEL]\n"
        "                       [--ARGUMENT VALUE ...]"
    )
    parser.epilog = (
        "The recipe names model, rows and suite, and takes the arguments of hf-unlearn train (--model_name_or_path, "
        "--forget_dataset, ...); what it says of a training is not used. "
        "hf-unlearn methods lists the edits with their arguments. Several edits, or an edit and a training: "
        "hf-unlearn train --phases."
    )
    parser.add_argument(
        "--config", metavar="RECIPE", help="YAML file, or a packaged recipe: edits/influence, harmful_lab, ..."
    )
    parser.add_argument(
        "--edit",
        metavar="NAME",
        help="""name, or JSON: '{"name": "task_vector", "alpha": 1.5}' (default: the phases of the recipe)""",
    )
    for name, what in (
        ("checkpoint", "model from before it learnt the forget rows, for edits that start from one"),
        ("output_dir", "where model, record, card and plots go"),
        ("attack", "suite of attacks to try at the end: quick, standard, thorough"),
        ("seed", "of everything that is drawn"),
    ):
        parser.add_argument(f"--{name}", metavar="VALUE", help=what)


def _run(args: argparse.Namespace) -> None:
    from ..tasks import run_task
    from .train import task_of

    task, rest = task_of(words_of_task(args.given, ("edit",)))
    _require_no_phases(rest)
    if args.edit is None:
        _require_phases(rest)
    else:
        rest = [*rest, "--phases", json.dumps([{"edit": _spec(args.edit)}])]
    trainer = run_task(task, rest)
    trainer.accelerator.end_training()


def _spec(text: str) -> object:
    from ..training.method_specs import parse_text

    return parse_text(text)


def _require_no_phases(words: Sequence[str]) -> None:
    """Raise for a command line with phases of its own."""
    from ..errors import input_error

    if any(word.partition("=")[0] == "--phases" for word in words):
        raise input_error(
            expected="--edit alone",
            got="--phases beside it",
            why="a run of one edit has one phase",
            fix="hf-unlearn train --phases",
        )


def _require_phases(words: Sequence[str]) -> None:
    """Raise where neither the command line nor its recipe names an edit."""
    from ..errors import input_error
    from ..tasks.command_words import split_config
    from ..tasks.recipe_files import find_recipe, read_recipe

    recipe, _ = split_config(words)
    if recipe is None or "phases" not in read_recipe(find_recipe(recipe)):
        raise input_error(
            expected="--edit, or --config with a recipe that has phases",
            got="neither",
            why="nothing would be edited",
            fix="add --edit with one of hf-unlearn methods, or take --config edits/influence",
        )


EDIT = Verb("edit weights without a training; measured, with a card", _arguments, _run, open=True)
