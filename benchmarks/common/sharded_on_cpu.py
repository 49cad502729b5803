"""DeepSpeed ZeRO and FSDP2 in processes without GPUs, where accelerate and DeepSpeed have to be told that they can."""

import os
from importlib import import_module

from accelerate import PartialState
from accelerate.utils import DistributedType


def fsdp_on_cpu() -> None:
    """Let accelerate have FSDP2 over gloo, where it would fall back to DDP."""
    os.environ["ACCELERATE_TORCH_DEVICE"] = "cpu"
    PartialState._prepare_backend = lambda self, *args, **kwargs: ("gloo", DistributedType.MULTI_GPU)


def without_compiling() -> None:
    """DeepSpeed without the kernel that it would compile for CPUs, a minute or two; gloo does the same."""
    import_module("deepspeed.comm.torch").build_shm_op = lambda: None
