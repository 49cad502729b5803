"""`hf-unlearn train`: runs a task from a recipe, in this process or in several that accelerate starts."""

import argparse
from collections.abc import Sequence

from .argument_help import add_own_arguments
from .command import CommandParser, Verb
from .train_series import add_series, run_series_of, split_series

_LAUNCH = (
    "accelerate_config",
    "num_processes",
    "num_machines",
    "machine_rank",
    "main_process_ip",
    "main_process_port",
)


# What the short help lists, in this order.
_MOST_USED = {
    "task": "harmful, copyright, privacy, muse, custom, ...",
    "model_name_or_path": "folder, or repository on the Hub",
    "forget_dataset": "rows to forget: file, saved folder or Hub id",
    "retain_dataset": "rows to keep",
    "holdout_dataset": "rows never seen, for membership and levels",
    "output_dir": "where model, record, card and plots go",
    "forget_loss": "npo, unseen_level, ... (hf-unlearn methods)",
    "retain_loss": "nll, kl, ...",
    "learning_rate": "peak learning rate",
    "num_train_epochs": "times that the forget set is walked",
    "use_peft": "train a LoRA adapter (--lora_r, ...)",
    "seed": "of everything that is drawn",
    "show_rows": "print so many rows as they are trained, and end",
    "attack": "attacks to try at the end: quick, standard, ...",
    "push_to_hub": "publish at the end (--hub_model_id)",
}


def _arguments(parser: CommandParser) -> None:
    parser.usage = (
        "hf-unlearn train [--config RECIPE] [--task TASK] [--methods M ...]\n"
        "                        [--seeds N ...] [--ARGUMENT VALUE ...]"
    )
    parser.epilog = (
        "Every argument of transformers.TrainingArguments and trl.ModelConfig works too; --task NAME --help_all lists "
        "them. The command line comes before the recipe."
    )
    parser.add_argument("--config", metavar="RECIPE", help="YAML file, or packaged recipe (--list_recipes)")
    parser.add_argument("--list_recipes", action="store_true", help="list the packaged recipes, a line each")
    parser.add_argument("--help_all", action="store_true", help="list every argument (with --task Trainer's too)")
    launch = parser.add_argument_group("several processes (accelerate launch)")
    launch.add_argument("--accelerate_config", metavar="NAME", help="ddp, zero2, zero3, fsdp2, ..., or a YAML file")
    for name in _LAUNCH[1:]:
        launch.add_argument(f"--{name}", metavar="VALUE", help=f"accelerate launch's --{name}")
    add_series(parser)
    parser.seldom |= {*_LAUNCH[2:]}
    add_own_arguments(parser, _MOST_USED)


def _run(args: argparse.Namespace) -> int | None:
    from ..tasks import run_task
    from ..tasks.recipe_files import list_recipes

    if args.list_recipes:
        print(list_recipes())
        return None
    series, rest = split_series(args.given)
    launch, rest = split_launch(rest)
    if args.help_all and not any(word.partition("=")[0] in ("--config", "--task") for word in rest):
        parser = CommandParser(prog="hf-unlearn train")
        _arguments(parser)
        print(parser.format_help_all(), end="")
        return None
    task, rest = task_of(rest)
    if args.help_all:
        run_task(task, ["--help"], description=f"hf-unlearn train --task {task}: every argument.")
    if series is not None:
        return run_series_of(series, task, rest, launch, {*_LAUNCH, "methods", "seeds", "compare"})
    if launch:
        return _launch(task, launch, rest)
    trainer = run_task(task, rest)
    # Threads of a process group that is left to the end of the interpreter can abort it, after all has been written.
    trainer.accelerator.end_training()
    return None


def task_of(arguments: Sequence[str]) -> tuple[str, list[str]]:
    """The task that a command line or its recipe names, and the other arguments.

    Raises:
        ValueError: neither names one.
    """
    from ..errors import input_error
    from ..plugins import load_plugins
    from ..tasks import TASKS
    from ..tasks.command_words import split_config
    from ..tasks.recipe_files import find_recipe, read_recipe

    task, rest, given = None, [], iter(arguments)
    for word in given:
        if word == "--task":
            task = next(given, None)
        elif word.startswith("--task="):
            task = word.split("=", 1)[1]
        else:
            rest.append(word)
    recipe, _ = split_config(rest)
    values = {} if recipe is None else read_recipe(find_recipe(recipe))
    load_plugins(plugins_of(rest) or values.get("plugins"))  # the task may be one of theirs
    task = values.get("task") if task is None else task
    if task is None:
        raise input_error(
            expected="--config with a recipe that names its task, or --task",
            got="neither" if recipe is None else "a recipe without a task",
            why="it says what is unlearned and how it is measured",
            fix=f"add --task with one of {', '.join(TASKS)}, or start from --config harmful_lab",
        )
    return task, rest


def plugins_of(arguments: Sequence[str]) -> list[str]:
    """The modules that `--plugins` names, the last one of several as argparse reads it."""
    modules: list[str] = []
    reading = False
    for word in arguments:
        if word.startswith("--"):
            name, is_whole, value = word.removeprefix("--").partition("=")
            reading = name == "plugins"
            if reading:
                modules = [value] if is_whole else []
        elif reading:
            modules.append(word)
    return modules


def split_launch(arguments: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """What is accelerate's, by name, and the task's own arguments."""
    launch: dict[str, str] = {}
    rest, given = [], iter(arguments)
    for word in given:
        name, is_whole, value = word.removeprefix("--").partition("=")
        if word.startswith("--") and name in _LAUNCH:
            launch[name] = value if is_whole else next(given, "")
        else:
            rest.append(word)
    return launch, rest


def _launch(task: str, launch: dict[str, str], rest: list[str]) -> int:
    """Start the run under accelerate; what its parsers would refuse is refused here, once."""
    from ..tasks import check_task
    from ..training.launch.start import has_accelerator, launch_processes

    values = check_task(task, rest, _LAUNCH)
    if not values["use_cpu"] and not has_accelerator():
        rest = [*rest, "--use_cpu"]  # accelerate would start processes that do not know of each other
    # accelerate's config and TrainingArguments must agree on it.
    precision = next((name for name in ("bf16", "fp16") if values[name]), "no")
    return launch_processes(launch | {"mixed_precision": precision}, ["train", "--task", task, *rest])


TRAIN = Verb(
    "unlearn, from a recipe; measured before and after, with a card",
    _arguments,
    _run,
    open=True,
)
