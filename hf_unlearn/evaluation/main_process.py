"""What one process does or meets for all: work that need not run on each of them, and refusals that they share."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from torch import nn

from ..model.sharding import is_sharded


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


@contextlib.contextmanager
def refused_together(accelerator: Accelerator, model: nn.Module) -> Iterator[None]:
    """A ValueError of any rank inside is raised on every rank, or the others would wait for one that has gone.

    Args:
        accelerator: of ranks that all come here.
        model: that is called inside. Where it is split over the ranks, they wait for each other in its forwards, and
            all see the same.
    """
    refusal: ValueError | None = None
    try:
        yield
    except ValueError as error:
        refusal = error
    if accelerator.num_processes > 1 and not is_sharded(model):
        refusals = gather_object([None if refusal is None else str(refusal)])
        first = next((words for words in refusals if words is not None), None)
        if refusal is None and first is not None:
            raise ValueError(first)
    if refusal is not None:
        raise refusal
