"""Work that one process does for all: judges, bootstraps and the harness need not run on every rank."""

from collections.abc import Callable
from typing import Any

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list


def from_main_process(work: Callable[[], Any], accelerator: Accelerator) -> Any:
    """What the main process computes, on every rank: judges, bootstraps and the harness need not run on all of them.

    A ValueError of the work is raised on every rank, or the others would wait for a process that has gone.
    """
    if accelerator.num_processes == 1:
        return work()
    result_and_error: list[Any] = [None, None]
    if accelerator.is_main_process:
        try:
            result_and_error = [work(), None]
        except ValueError as error:
            result_and_error = [None, str(error)]
    broadcast_object_list(result_and_error)
    if result_and_error[1] is not None:
        raise ValueError(result_and_error[1])
    return result_and_error[0]
