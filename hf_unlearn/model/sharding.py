"""Models of several ranks: which have their parameters split (ZeRO-3, FSDP), how to read whole ones and share them."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel
from torch.distributed.tensor import DTensor


def is_partitioned(tensor: Tensor) -> bool:
    """Whether DeepSpeed ZeRO-3 has split a parameter; its own tensor is empty unless it is being used."""
    return hasattr(tensor, "ds_id")  # DeepSpeed has no class for them and asks the same


def is_sharded(model: nn.Module) -> bool:
    """Whether parameters are split over ranks, so that every forward of one rank waits for the others'."""
    if any(isinstance(module, FSDPModule | FullyShardedDataParallel) for module in model.modules()):
        return True
    return any(is_partitioned(weight) or isinstance(weight, DTensor) for weight in model.parameters())


def gathers_itself(model: nn.Module) -> bool:
    """Whether a forward puts split parameters together: what ZeRO-3 has only split, but not prepared, does not."""
    if not any(map(is_partitioned, model.parameters())):
        return True
    # The engine leaves its mark on the model that it was made for, which is no other than the outermost one.
    return hasattr(model, "ds_inflight_param_registry") or hasattr(model, "zero_optimization_stage")


def reshard(model: nn.Module) -> None:
    """Split what FSDP2 has left whole after a forward: it keeps the last layers for a backward, which may not come.

    A state dict that is loaded then would not fit them.
    """
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def full_state_dict(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """(name, tensor) of the state dict by name, whole on every rank, one at a time.

    Under ZeRO-3 and FSDP it is collective: every rank has to go through all of it, and a tensor is whole until the
    next one is asked for.

    Args:
        model: unwrapped.
    """
    for name, tensor in sorted(model.state_dict(keep_vars=True).items()):
        if isinstance(tensor, DTensor):
            whole: Tensor = tensor.full_tensor()
            yield name, whole.detach()
        elif is_partitioned(tensor):
            import deepspeed  # optional, and there where a parameter is partitioned

            with deepspeed.zero.GatheredParameters([tensor]):
                yield name, tensor.detach()
        else:
            yield name, tensor.detach()


def share_weights(model: nn.Module, device: torch.device) -> None:
    """Give every rank the main process's parameters and buffers, as DDP and ZeRO-1 and 2 do when they wrap a model.

    What is measured of a model before that would else be of several models, where ranks have made theirs of other
    random numbers.

    Args:
        model: whole on every rank.
        device: of this rank, where the backend can reach it.
    """
    for tensor in (*model.parameters(), *model.buffers()):
        shared = tensor.detach().to(device).contiguous()
        torch.distributed.broadcast(shared, 0)
        tensor.data.copy_(shared)
