"""Whole runs, as `hf-unlearn train` and the examples start them: data, training between evaluations, table, card."""

import importlib
import sys
import tempfile
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ..plugins import Plugin, PluginTable
from .library_noise import quiet_libraries

if TYPE_CHECKING:  # at run time these take seconds to import
    from ..training.trainer import UnlearningTrainer
    from .arguments import Parsed
    from .task import Task


def _modules(plugin: Plugin) -> Mapping[str, str]:
    for name, module in plugin.tasks.items():
        if not isinstance(module, str):
            raise ValueError(
                f"expected the module of the task {name!r} by its dotted name, got {type(module).__name__}"
            )
    return plugin.tasks


# In the order in which errors and help name them; each is a module with Arguments, DEFAULT_RECIPE and make_task.
TASKS = PluginTable[str](
    "task",
    {
        name: f"{__name__}.{name}"
        for name in ("harmful", "copyright", "privacy", "deletion", "muse", "rwku", "wmdp", "custom")
    },
    _modules,
)


def run_task(name: str, arguments: Sequence[str] | None = None, description: str | None = None) -> "UnlearningTrainer":
    """Run a task from command-line arguments, as `hf-unlearn train --task NAME` does.

    Args:
        name: of `TASKS`.
        arguments: None for those of the process.
        description: of `--help`.

    Returns:
        the trainer, after the run; with `show_rows` the process ends instead, as with `--help`.

    Raises:
        ValueError: arguments that would not unlearn what was asked, before any training.
    """
    # Libraries that take seconds are imported when there is something to run.
    quiet_libraries()
    from .run import run
    from .shown_rows import show_task

    parsed = parse_task(name, arguments, description)
    task = make_task(name, parsed)
    show = parsed.script.show_rows is not None
    work: Any = partial(show_task, task, parsed, sys.stdout) if show else partial(run, task, name, parsed)
    if task.cache is None:
        return work()
    if parsed.args.process_index == 0:
        print(task.cache.description, file=sys.stderr)
    try:
        return work()
    finally:
        task.cache.close()


def make_task(name: str, parsed: "Parsed") -> "Task":
    """The task of parsed arguments: model (that of the run it continues from), rows and suite, loaded and checked."""
    from .continued_run import continue_run

    continued = continue_run(parsed)
    task: Task = _module(name).make_task(parsed)
    if continued is not None:
        continued.take_over(task)
    return task


def parse_task(name: str, arguments: Sequence[str] | None = None, description: str | None = None) -> "Parsed":
    """A task's arguments, parsed and checked.

    Raises:
        ValueError: unknown arguments, or a recipe of another task.
    """
    from .arguments import parse_arguments

    module = _module(name)
    return parse_arguments(name, module.Arguments, module.DEFAULT_RECIPE, description, arguments)


def parse_values(name: str, values: Mapping[str, Any], words: Sequence[str]) -> "Parsed":
    """A task's arguments from the values of a recipe and words on top, as `parse_task` reads them from a file.

    Raises:
        ValueError: unknown arguments, or values of another task.
    """
    import yaml

    with tempfile.TemporaryDirectory() as scratch:
        recipe = Path(scratch) / "recipe.yaml"
        recipe.write_text(yaml.safe_dump(dict(values)), encoding="utf-8")
        return parse_task(name, ["--config", str(recipe), *words])


def check_task(name: str, arguments: Sequence[str], own: Collection[str] = ()) -> dict[str, Any]:
    """Refuse the arguments that `parse_task` would, before processes are started; the values by name.

    Args:
        name: of the task.
        arguments: the words of a command line.
        own: names of the command's own arguments, one of which may have been meant by an unknown one.

    Raises:
        ValueError: unknown arguments, or a recipe of another task.
    """
    from .arguments import check_arguments

    module = _module(name)
    return check_arguments(name, module.Arguments, module.DEFAULT_RECIPE, arguments, own)


def default_recipe(name: str) -> str | None:
    """The packaged recipe that a task takes where none is named; None for a task without one."""
    recipe: str | None = _module(name).DEFAULT_RECIPE
    return recipe


def _module(name: str) -> ModuleType:
    from ..errors import input_error, require_choice

    require_choice("task", name, TASKS)
    module = importlib.import_module(TASKS[name])
    lacking = [part for part in ("Arguments", "DEFAULT_RECIPE", "make_task") if not hasattr(module, part)]
    if lacking:
        raise input_error(
            expected=f"{TASKS[name]} to be the module of a task, with Arguments, DEFAULT_RECIPE and make_task",
            got=f"no {lacking[0]}",
            why="arguments are read and rows loaded by them",
            fix="write it as hf_unlearn/tasks/custom.py is written; docs/plugins.md",
        )
    return module
