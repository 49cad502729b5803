"""Checks of what runs against what a launcher asked for: number of processes, sharding, ZeRO stage."""

import contextlib
import os
from collections.abc import Iterator

from accelerate import Accelerator
from accelerate.utils import DistributedType, get_int_from_env, parse_flag_from_env
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from transformers import TrainingArguments
from transformers.training_args import ParallelMode

from ...errors import input_error
from ...model.sharding import is_sharded
from ..distributed_setup import DistributedSetup

_WORLD_SIZES = ["WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE"]
_ALONE = (DistributedType.NO, DistributedType.MULTI_CPU)


@contextlib.contextmanager
def restored_environment() -> Iterator[None]:
    """Put back the environment variables that were changed by what is inside, when it fails.

    accelerate announces FSDP and DeepSpeed in the environment before it knows whether they can be had; after a refusal
    every later run of the process would be taken for one of those.
    """
    before = dict(os.environ)

    def restore() -> None:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)

    with contextlib.ExitStack() as on_failure:
        on_failure.callback(restore)
        yield
        on_failure.pop_all()


def require_launched(args: TrainingArguments) -> None:
    """Raise where processes were started that will not train together, or not as their launcher's config says.

    accelerate falls back in silence: to one process, to processes that know nothing of each other, or to a whole model
    on each. Looked at as soon as there are arguments, before anything is loaded.

    Args:
        args: initialised, so that the process group exists.

    Raises:
        ValueError: fewer processes than were asked for, or ones that do not average their gradients; FSDP or DeepSpeed
            that will not be engaged; a ZeRO stage other than the launcher's.
    """
    require_several()
    _require_together(args)
    if args.fsdp and args.parallel_mode != ParallelMode.DISTRIBUTED:
        fix = "start it with `accelerate launch` or torchrun, or leave fsdp out"
        raise _not_engaged("FSDP", "a process on its own", fix, asked_by="the argument fsdp")
    on_cpu = parse_flag_from_env("ACCELERATE_USE_CPU")
    if parse_flag_from_env("ACCELERATE_USE_FSDP") and args.distributed_state.distributed_type in _ALONE:
        raise _not_engaged("FSDP", "a CPU" if args.device.type == "cpu" else "a process on its own", _FSDP_FIX)
    if parse_flag_from_env("ACCELERATE_USE_DEEPSPEED") and on_cpu:
        fix = "unset ACCELERATE_USE_CPU; use_cpu=True (--use_cpu) puts DeepSpeed on the CPU"
        raise _not_engaged("DeepSpeed", "ACCELERATE_USE_CPU=true, under which accelerate leaves it out", fix)
    asked, plugin = get_int_from_env(["ACCELERATE_DEEPSPEED_ZERO_STAGE"], -1), args.deepspeed_plugin
    if asked >= 0 and plugin is not None and plugin.zero_stage != asked:
        raise input_error(
            expected=f"ZeRO-{asked}, the stage of the launcher's config",
            got=f"ZeRO-{plugin.zero_stage}, the stage of args.deepspeed",
            why="one of the two would be dropped without a word",
            fix="leave deepspeed out of the arguments, or start it with torchrun",
        )


_FSDP_FIX = "use GPUs and leave use_cpu out; on a CPU: --accelerate_config ddp or zero2"


def require_several() -> None:
    """Raise in the one process that accelerate starts for several when its config has no launcher for them."""
    # Its simple launcher alone sets ACCELERATE_USE_CPU, and with more than one process MASTER_ADDR.
    announced = "ACCELERATE_USE_CPU" in os.environ and "MASTER_ADDR" in os.environ
    if announced and "LOCAL_RANK" not in os.environ and get_int_from_env(_WORLD_SIZES, 1) == 1:
        raise input_error(
            expected="as many processes as accelerate launch was asked for",
            got="one",
            why="accelerate starts no more for --cpu, MULTI_CPU and configs without GPUs, and does not say so",
            fix="use --accelerate_config ddp (accelerate launch --multi_gpu), and give the script --use_cpu where "
            "there is no GPU; if one process is meant, pass --num_processes 1 and unset MASTER_ADDR",
        )


def _require_together(args: TrainingArguments) -> None:
    """Raise in one of several processes that know nothing of each other, or would not average their gradients."""
    launched, state = get_int_from_env(_WORLD_SIZES, 1), args.distributed_state
    if launched == 1:
        return
    if state.num_processes != launched or state.distributed_type == DistributedType.NO:
        got = "processes that know nothing of each other"
        raise input_error(
            expected=f"{launched} processes that train one model, as they were launched",
            got=got if state.num_processes == 1 else "processes that would not average their gradients",
            why="each would train a model of its own and write over the files of the others",
            fix="on a CPU pass use_cpu=True (--use_cpu); on GPUs see to it that torch finds them (nvidia-smi)",
        )


def require_engaged(accelerator: Accelerator) -> None:
    """Raise where FSDP or DeepSpeed was asked for and the trainer's accelerator has fallen back to something else."""
    for name, variable, kind in (
        ("FSDP", "ACCELERATE_USE_FSDP", DistributedType.FSDP),
        ("DeepSpeed", "ACCELERATE_USE_DEEPSPEED", DistributedType.DEEPSPEED),
    ):
        if parse_flag_from_env(variable) and accelerator.distributed_type != kind:
            raise _not_engaged(name, accelerator.distributed_type.value, _FSDP_FIX)


def _not_engaged(name: str, got: str, fix: str, *, asked_by: str = "the launcher's config") -> ValueError:
    return input_error(
        expected=f"{name}, which {asked_by} asks for",
        got=got,
        why="every process would hold the whole model, and the memory that was to be saved is not",
        fix=fix,
    )


def require_wrapped(model: nn.Module, distributed: DistributedSetup) -> None:
    """Raise unless the model that is about to train is wrapped as the setup says.

    Args:
        model: as the trainer calls it (a DeepSpeed engine, DDP, sharded, or plain).
        distributed: the setup that was detected when the trainer was built.
    """
    if isinstance(model, nn.DataParallel):
        raise input_error(
            expected="one process for every GPU",
            got=f"one for {len(model.device_ids)}, between which torch's DataParallel would cut each batch",
            why="the rows to forget and to keep are slices of a whole batch",
            fix="start it with `accelerate launch --num_processes N`, or show it one GPU (CUDA_VISIBLE_DEVICES=0)",
        )
    if distributed.deepspeed:
        asked, engine = distributed.zero_stage, getattr(model, "zero_optimization_stage", None)
        expected, got = f"a DeepSpeed engine of ZeRO-{asked}", "none" if engine is None else f"ZeRO-{engine()}"
        engaged = engine is not None and engine() == asked
    elif distributed.fsdp:
        expected, got, engaged = "parameters sharded by FSDP", "whole ones", is_sharded(model)
    else:
        expected, got = "a model whose gradients are averaged over the processes", "one that is not wrapped"
        wrapped = any(isinstance(module, DistributedDataParallel) for module in model.modules())
        engaged = distributed.processes == 1 or wrapped or is_sharded(model)
    if not engaged:
        raise input_error(
            expected=expected,
            got=got,
            why="the run would not be what its launcher's config says",
            fix="see that the model reaches the trainer unwrapped, and report this if it does",
        )
