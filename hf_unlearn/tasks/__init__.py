"""Whole runs, as `hf-unlearn train` and the examples start them: data, training between evaluations, table, card."""

import importlib
from collections.abc import Collection, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # at run time these take seconds to import
    from ..training.trainer import UnlearningTrainer
    from .arguments import Parsed
    from .task import Task

# In the order in which errors and help name them; each is a module with Arguments, DEFAULT_RECIPE and make_task.
TASKS = ("harmful", "copyright", "privacy", "custom")


def run_task(name: str, arguments: Sequence[str] | None = None, description: str | None = None) -> "UnlearningTrainer":
    """Run a task from command-line arguments, as `hf-unlearn train --task NAME` does.

    Args:
        name: of `TASKS`.
        arguments: None for those of the process.
        description: of `--help`.

    Returns:
        the trainer, after the run.

    Raises:
        ValueError: arguments that would not unlearn what was asked, before any training.
    """
    # Libraries that take seconds are imported when there is something to run.
    from .run import run

    parsed = parse_task(name, arguments, description)
    return run(make_task(name, parsed), name, parsed)


def make_task(name: str, parsed: "Parsed") -> "Task":
    """The task of parsed arguments: model, rows and suite, loaded and checked."""
    return _module(name).make_task(parsed)


def parse_task(name: str, arguments: Sequence[str] | None = None, description: str | None = None) -> "Parsed":
    """A task's arguments, parsed and checked.

    Raises:
        ValueError: unknown arguments, or a recipe of another task.
    """
    from .arguments import parse_arguments

    module = _module(name)
    return parse_arguments(name, module.Arguments, module.DEFAULT_RECIPE, description, arguments)


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


def _module(name: str) -> ModuleType:
    from ..errors import require_choice

    require_choice("task", name, TASKS)
    return importlib.import_module(f".{name}", __name__)
