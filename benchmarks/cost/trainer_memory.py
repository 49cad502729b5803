"""Memory of a trainer: what stays (weights, gradients, optimizer states, a frozen copy) and the peak above it."""

from collections.abc import Iterable, Iterator

import torch
from transformers import Trainer

from benchmarks.memory_plan.live_memory import LiveMemory
from hf_unlearn.training.reference.stored_hidden import StoredHidden

MIB = 2**20


def kept_mib(trainer: Trainer) -> dict[str, float]:
    """MiB of the tensors that stay from step to step; gradients as if all were there."""
    parameters = list(trainer.model.parameters())
    states = [value for state in trainer.optimizer.state.values() for value in state.values()]
    return {
        "weights_mib": _mib(parameters),
        "gradients_mib": _mib(p for p in parameters if p.requires_grad),
        "optimizer_mib": _mib(value for value in states if isinstance(value, torch.Tensor)),
        "frozen_copy_mib": _mib(frozen_copy(trainer)),
    }


def frozen_copy(trainer: Trainer) -> Iterator[torch.Tensor]:
    """The weights of a second model, or of its output head, where the reference of an unlearning trainer is one."""
    reference = getattr(trainer, "reference", None)
    own = {id(parameter) for parameter in trainer.model.parameters()}
    for held in () if reference is None else vars(reference).values():
        held = held.head if isinstance(held, StoredHidden) else held
        if isinstance(held, torch.nn.Module):
            yield from (parameter for parameter in held.parameters() if id(parameter) not in own)


def memory_of_step(trainer: Trainer, steps: Iterator[None]) -> dict[str, float]:
    """`kept_mib` and `peak_above_mib`: the peak of one more step above weights, gradients and optimizer states.

    The optimizer must have taken a step before. A frozen copy counts into the peak. On a CPU the tensors are counted;
    on a GPU the allocator's peak is read, and less than all gradients may be alive when it is reached.
    """
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        next(steps)
        return cuda_memory(trainer)
    trained = [parameter for parameter in trainer.model.parameters() if parameter.requires_grad]
    with LiveMemory() as memory:
        hooks = [
            parameter.register_post_accumulate_grad_hook(lambda weight: memory.leave_out([weight.grad]))
            for parameter in trained
        ]
        next(steps)
    for hook in hooks:
        hook.remove()
    kept = kept_mib(trainer)
    return kept | {"peak_above_mib": memory.peak() / MIB + kept["frozen_copy_mib"]}


def cuda_memory(trainer: Trainer) -> dict[str, float]:
    """`kept_mib`, and the allocator's peak since it was last reset."""
    torch.cuda.synchronize()
    kept, peak = kept_mib(trainer), torch.cuda.max_memory_allocated() / MIB
    above = peak - kept["weights_mib"] - kept["gradients_mib"] - kept["optimizer_mib"]
    return kept | {"peak_mib": peak, "peak_above_mib": above}


def _mib(tensors: Iterable[torch.Tensor]) -> float:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors) / MIB
