"""Where the time of one training step goes: matrix products, attention, the optimizer, copies, all else; and idle."""

import re
import time
from collections.abc import Iterator

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

# By the first that a name holds, of kernels on a card and of operators on a CPU.
_PARTS = {
    "attention": r"flash|fmha|attention|flex",
    "optimizer": r"adam|multi_tensor|foreach",
    "matrix products": r"gemm|cutlass|nvjet|cublas|xmma|splitk|aten::(mm|bmm|addmm|linear|matmul|baddbmm)$",
    "copies": r"memcpy|memset|aten::(copy_|_to_copy|clone|contiguous|fill_|zero_)$",
}


def part_of(name: str) -> str:
    """The part of a step that a kernel or an operator belongs to."""
    return next((part for part, pattern in _PARTS.items() if re.search(pattern, name, re.IGNORECASE)), "all else")


def profiled_step(steps: Iterator[None], *, cuda: bool) -> dict[str, float]:
    """Milliseconds of each part in one step, and its wall time ("step") under the profiler, which slows the host.

    Args:
        steps: each `next` is a step; two are taken, the first without being looked at.
        cuda: whether the kernels of a card are counted, and "idle", the time without any; else a CPU's operators.
    """
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    next(steps)
    if cuda:
        torch.cuda.synchronize()
    with profile(activities=activities) as seen:
        began = time.perf_counter()
        next(steps)
        if cuda:
            torch.cuda.synchronize()
        wall = 1000 * (time.perf_counter() - began)
    parts = dict.fromkeys([*_PARTS, "all else"], 0.0)
    for event in seen.key_averages():
        if cuda and event.device_type is not DeviceType.CUDA:
            continue
        microseconds = event.self_device_time_total if cuda else event.self_cpu_time_total
        parts[part_of(event.key)] += microseconds / 1000
    if cuda:
        parts["idle"] = max(0.0, wall - sum(parts.values()))
    return parts | {"step": wall}
