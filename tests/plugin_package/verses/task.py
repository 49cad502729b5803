"""A task: rows of one's own, measured by this package's suite."""

from dataclasses import dataclass

from hf_unlearn.tasks import custom
from hf_unlearn.tasks.arguments import Parsed
from hf_unlearn.tasks.task import Task

DEFAULT_RECIPE = None


@dataclass
class Arguments(custom.Arguments):
    """The arguments of `custom`, with another suite."""

    suite: str = "verses"


def make_task(parsed: Parsed) -> Task:
    """The task that the arguments name."""
    return custom.make_task(parsed)
