"""Memory of weights, gradients and optimizer states on one GPU under each packaged config.

How DeepSpeed lays its buffers out is read from its source (0.19), FSDP2's from torch 2.13 and accelerate 1.15.
"""

import enum
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from ..errors import input_error
from ..training.launch.start import PACKAGED
from .counts import Counts
from .request import Request

# DeepSpeed's own sizes, in elements, where a config leaves them out.
_DEEPSPEED_DEFAULTS = {"reduce_bucket_size": 5e8, "stage3_max_live_parameters": 1e9, "sub_group_size": 1e9}


class Kind(enum.StrEnum):
    """How processes share a model."""

    SINGLE = "single"
    DDP = "ddp"
    ZERO_1 = "zero1"
    ZERO_2 = "zero2"
    ZERO_3 = "zero3"
    FSDP2 = "fsdp2"


@dataclass(frozen=True)
class Strategy:
    """A packaged config of accelerate, as far as memory depends on it.

    Attributes:
        name: of the config; "none" for one process without a config.
        kind: what it shards.
        offload_optimizer: optimizer states and gradients lie in the machine's memory, and the step is made there.
        offload_parameters: the sharded weights do, too.
        reduce_bucket: elements of DeepSpeed's buffer for gradients on their way.
        live_parameters: elements of gathered weights that ZeRO-3 lets lie.
        sub_group: elements that ZeRO-3's optimizer takes at a time.
    """

    name: str
    kind: Kind
    offload_optimizer: bool = False
    offload_parameters: bool = False
    reduce_bucket: int = 0
    live_parameters: int = 0
    sub_group: int = 0

    @property
    def sharded(self) -> bool:
        """Whether weights are split over ranks."""
        return self.kind in (Kind.ZERO_3, Kind.FSDP2)

    @property
    def deepspeed(self) -> bool:
        """Whether DeepSpeed runs it."""
        return self.kind in (Kind.ZERO_1, Kind.ZERO_2, Kind.ZERO_3)

    @property
    def cost(self) -> tuple[bool, int]:
        """What is cheaper in time comes first: fewer bytes between GPUs, and none to the machine's memory."""
        return self.offload_optimizer or self.offload_parameters, list(Kind).index(self.kind)


def packaged_strategies(machines: int = 1) -> list[Strategy]:
    """One process without a config, then the packaged configs, cheapest in time first.

    Args:
        machines: of two configs that share memory alike, the one that is made for so many is taken.
    """
    strategies: dict[tuple[Kind, bool, bool], Strategy] = {}
    for path in sorted(PACKAGED.glob("*.yaml")):
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        strategy = _strategy(path.stem, values)
        key = (strategy.kind, strategy.offload_optimizer, strategy.offload_parameters)
        if key not in strategies or (int(values.get("num_machines", 1)) > 1) == (machines > 1):
            strategies[key] = strategy
    return [Strategy("none", Kind.SINGLE), *sorted(strategies.values(), key=lambda strategy: strategy.cost)]


def read_strategy(path: Path) -> Strategy:
    """The strategy of a config of accelerate.

    Raises:
        ValueError: a kind of sharing that is not known here.
    """
    return _strategy(path.stem, yaml.safe_load(path.read_text(encoding="utf-8")))


def _strategy(name: str, values: dict[str, Any]) -> Strategy:
    kinds = {"NO": Kind.SINGLE, "MULTI_GPU": Kind.DDP, "FSDP": Kind.FSDP2}
    kind = str(values.get("distributed_type"))
    if kind in kinds and (kind != "FSDP" or int(values.get("fsdp_config", {}).get("fsdp_version", 1)) == 2):
        return Strategy(name, kinds[kind])
    if kind != "DEEPSPEED" or "zero_stage" not in values.get("deepspeed_config", {}):
        raise input_error(
            expected="a config of accelerate for DDP, FSDP2, or ZeRO with its zero_stage",
            got=f"{name} of distributed_type {kind}",
            why="how weights are shared is read from it",
            fix="start from a packaged config: ddp, zero1, zero2, zero3, zero3_offload, fsdp2",
        )
    plugin: dict[str, Any] = values["deepspeed_config"]
    sizes = {size: int(plugin.get(size, default)) for size, default in _DEEPSPEED_DEFAULTS.items()}
    return Strategy(
        name,
        Kind(f"zero{plugin['zero_stage']}"),
        offload_optimizer=plugin.get("offload_optimizer_device", "none") != "none",
        offload_parameters=plugin.get("offload_param_device", "none") != "none",
        reduce_bucket=sizes["reduce_bucket_size"],
        live_parameters=sizes["stage3_max_live_parameters"],
        sub_group=sizes["sub_group_size"],
    )


@dataclass(frozen=True)
class States:
    """Bytes on one GPU, activations aside.

    Attributes:
        weights: always there: what lies on the GPU between steps.
        gathered: weights of other ranks' shares, while a block needs them; `head_gathered` while the head does.
        gradients: of all trained weights at the end of the backward pass.
        buffers: for gradients on their way, from the first backward pass on; `block_buffers` while a block has some.
        head_gradient: of the output head, which comes first in the backward pass.
        optimizer: states and masters of the weights.
        step_gradients: gradients and their buffers during the optimizer's step.
        step: what that step takes and gives back.
        host: bytes per process in the machine's memory.
    """

    weights: int
    gradients: int
    optimizer: int
    gathered: int = 0
    head_gathered: int = 0
    buffers: int = 0
    block_buffers: int = 0
    head_gradient: int = 0
    step_gradients: int = 0
    step: int = 0
    host: int = 0


@dataclass(frozen=True)
class Precision:
    """Bytes of elements.

    Attributes:
        frozen: of a frozen weight.
        trained: of a trained weight, and of its gradient.
        compute: the dtype that the decoder computes in, its adapters too.
        autocast: mixed precision by autocast, or None.
        fp32_adapters: whether adapters stay in fp32 beside a 16-bit base.
    """

    frozen: int
    trained: int
    compute: torch.dtype
    autocast: torch.dtype | None
    fp32_adapters: bool


def precision(request: Request, strategy: Strategy) -> Precision:
    """What weights are stored and computed in: autocast on plain weights, 16-bit weights with fp32 masters else."""
    stored, mixed, lora = request.dtype.itemsize, request.mixed, request.peft_config is not None
    if strategy.deepspeed and mixed is not None:
        return Precision(mixed.itemsize, mixed.itemsize, mixed, None, fp32_adapters=False)
    if strategy.kind is Kind.FSDP2 and mixed is not None:
        return Precision(stored, 4, mixed, None, fp32_adapters=False)
    # ZeRO-3 gathers into buffers of one type (see modeling._add_adapter).
    fp32_adapters = lora and (strategy.kind is not Kind.ZERO_3 or request.quantised is not None)
    trained = 4 if fp32_adapters else stored
    return Precision(stored, trained, request.dtype, mixed, fp32_adapters)


def states(request: Request, counts: Counts, strategy: Strategy, gpus: int) -> States:
    """What one of `gpus` GPUs holds beside activations.

    Args:
        request: precision and optimizer.
        counts: of the model.
        strategy: how it is shared.
        gpus: in all.
    """
    sizes = precision(request, strategy)
    frozen = counts.frozen * sizes.frozen
    if request.quantised is not None:
        frozen += round(counts.linear * (request.quantised - sizes.frozen))
    if strategy.kind in (Kind.SINGLE, Kind.DDP):
        return _replicated(request, counts, sizes, frozen, buckets=strategy.kind is Kind.DDP and gpus > 1)
    if strategy.kind is Kind.FSDP2:
        return _fsdp2(request, counts, sizes, frozen, gpus)
    if strategy.kind is Kind.ZERO_3:
        return _zero3(request, counts, sizes, frozen, strategy, gpus)
    return _zero12(request, counts, sizes, frozen, strategy, gpus)


def _replicated(request: Request, counts: Counts, sizes: Precision, frozen: int, *, buckets: bool) -> States:
    trained = counts.trained * sizes.trained
    reduced = trained if buckets else 0  # DDP reduces copies of the gradients
    return States(
        weights=frozen + trained + 4 * counts.buffers,
        gradients=trained,
        optimizer=request.optimizer.states(counts, sizes.trained),
        buffers=reduced,
        head_gradient=_head(counts) * sizes.trained,
        step_gradients=trained + reduced,
        step=request.optimizer.step_bytes(counts, sizes.trained),
    )


def _zero12(request: Request, counts: Counts, sizes: Precision, frozen: int, strategy: Strategy, gpus: int) -> States:
    share, trained = 1 / gpus, counts.trained * sizes.trained
    bucket = strategy.reduce_bucket * sizes.trained
    whole = strategy.kind is Kind.ZERO_1
    masters = round(4 * counts.trained * share)
    # The step makes one line of the gradients of the rank's share, and then one in fp32.
    lines = round(counts.trained * share * (sizes.trained + (4 if sizes.trained < 4 else 0)))
    return States(
        weights=frozen + trained + 4 * counts.buffers,
        # ZeRO-1 cuts its share out of whole gradients, and lets go of the others when the step begins.
        gradients=round(trained * share) + (trained if whole else 0),
        optimizer=masters + request.optimizer.states(counts, 4, share),
        buffers=bucket,
        head_gradient=_head(counts) * sizes.trained if whole else 0,
        step_gradients=round(trained * share),
        step=lines + request.optimizer.step_bytes(counts, 4, share),
    )


def _zero3(request: Request, counts: Counts, sizes: Precision, frozen: int, strategy: Strategy, gpus: int) -> States:
    share = 1 / gpus
    weights = round((frozen + counts.trained * sizes.trained) * share)
    masters = round(4 * counts.trained * share)  # of fp32 weights too
    optimizer = masters + request.optimizer.states(counts, 4, share)
    gradients = round(counts.trained * sizes.trained * share)
    # A module's weights stay until so many elements are live, and the largest one comes on top.
    gathered = min(counts.total, strategy.live_parameters + counts.largest) * sizes.compute.itemsize
    sub_group = min(counts.trained, strategy.sub_group)
    # The step makes one line of a group's gradients, and then one in fp32.
    lines = round(sub_group * share * (sizes.trained + (4 if sizes.trained < 4 else 0)))
    step = lines + request.optimizer.step_bytes(counts, 4, share)
    # Room for the gradients of the rank's share is there from the start.
    buffers = strategy.reduce_bucket * sizes.trained + gradients * (not strategy.offload_optimizer)
    on_host = weights * strategy.offload_parameters
    on_host += (optimizer + gradients + 4 * round(counts.trained * share)) * strategy.offload_optimizer
    return States(
        weights=weights * (not strategy.offload_parameters) + 4 * counts.buffers,
        gathered=gathered,
        head_gathered=gathered,
        gradients=0,
        buffers=buffers,
        step_gradients=buffers,
        optimizer=optimizer * (not strategy.offload_optimizer),
        step=step * (not strategy.offload_optimizer),
        host=on_host,
    )


def _fsdp2(request: Request, counts: Counts, sizes: Precision, frozen: int, gpus: int) -> States:
    share, size = 1 / gpus, sizes.compute.itemsize
    trained = round(counts.trained * sizes.trained * share)
    # The next block is gathered while one computes; the head stays from the end of the forward pass on.
    head = (counts.head or counts.embedding) * size
    return States(
        weights=round(frozen * share) + trained + 4 * counts.buffers,
        gathered=2 * counts.block * size + head,
        head_gathered=counts.block * size + head,
        gradients=trained,
        # A block's whole gradients and their copy for the reduction.
        block_buffers=2 * counts.trained_block * size,
        head_gradient=_head(counts) * size,
        optimizer=request.optimizer.states(counts, sizes.trained, share),
        step_gradients=trained,
        step=request.optimizer.step_bytes(counts, sizes.trained, share),
    )


def _head(counts: Counts) -> int:
    """Trained elements of the output head."""
    return (counts.embedding if counts.tied else counts.head) * counts.trains_head
