"""The memory of one GPU over a training step under a strategy, at the moment where the sum is highest."""

import math
from dataclasses import dataclass, replace

import torch

from ..component import Component, TrainingSetup, require_supported
from ..data.roles import Role
from ..errors import input_error
from ..model.chunk_sizes import ChunkSizes, DeviceMemory, chunk_sizes
from ..model.hidden_states import block_number
from ..training.reference.plan import ReferenceContext, ReferenceMode, ReferencePlan, plan_reference
from .activations import Activations, Compute, measure_activations
from .counts import Counts, count_parameters
from .head import HeadCost, HeadShape, measure_head
from .moments import MemoryBreakdown, Step
from .request import Hardware, Request
from .strategies import Precision, Strategy, precision, states


@dataclass(frozen=True)
class Memory:
    """The memory of a run under one strategy.

    Attributes:
        moments: parts by moment of the step, in order.
        reference: how the reference is known.
        host: bytes per process in the machine's memory.
    """

    moments: dict[str, MemoryBreakdown]
    reference: str
    host: int = 0

    @property
    def at(self) -> str:
        """The moment of the peak."""
        return max(self.moments, key=lambda name: self.moments[name].total)

    @property
    def parts(self) -> MemoryBreakdown:
        """Parts at the peak."""
        return self.moments[self.at]

    @property
    def peak(self) -> int:
        """Bytes at the peak."""
        return self.parts.total


class Planner:
    """Memory of one request under several strategies; what they have in common is measured once."""

    def __init__(self, request: Request, hardware: Hardware | None = None) -> None:
        self.request, self.hardware = request, hardware or Hardware()
        self.counts: Counts = count_parameters(request.config, request.peft_config)
        self._decoders: dict[tuple[Compute, int], Activations] = {}
        self._heads: dict[tuple[Compute, int | None, ChunkSizes], HeadCost] = {}

    def memory(self, strategy: Strategy, gpus: int) -> Memory:
        """Memory of one GPU of `gpus` under a strategy.

        Raises:
            ValueError: a loss, a wrapper or the reference does not work under it.
        """
        request = self.request
        self._require_works(strategy)
        setting = ReferenceContext(
            peft=request.peft_config is not None,
            trained_adapter=False,
            given=False,
            stream=False,
            sharded=strategy.sharded,
        )
        plan = plan_reference(request.objective.needs, request.reference, setting)
        counts = self._reached(strategy)
        sizes, held = precision(request, strategy), states(request, counts, strategy, gpus)
        live = self._live_roles(plan)
        top_k = request.top_k if plan.live is ReferenceMode.TOP_K else None
        frozen = ReferenceMode.FROZEN_COPY in plan.modes
        reference = self._reference_weights(plan, strategy, gpus)
        compute = self._compute(sizes)
        activations = self._decoder(compute, sum(request.rows_of(role) for role in live))
        step = Step(request, counts, sizes, held, activations, live, dense=strategy.sharded and frozen)
        head = self._head(compute, top_k, self.hardware.usable - step.before_head(reference).total)
        return Memory(step.moments(head, reference), str(plan), held.host)

    def _reached(self, strategy: Strategy) -> Counts:
        """Counts in which what gets no gradient is frozen: all above the layer that losses of hidden states read.

        Optimizers of torch keep nothing for such weights; DeepSpeed does.
        """
        counts, blocks = self.counts, self._differentiated()
        if self.request.objective.needs.logps or strategy.deepspeed:
            return counts
        above = (
            counts.trained_block * (self.request.config.num_hidden_layers - blocks) + counts.head * counts.trains_head
        )
        return replace(counts, trained=counts.trained - above, frozen=counts.frozen + above, trains_head=False)

    def _require_works(self, strategy: Strategy) -> None:
        request = self.request
        full_16_bit = request.peft_config is None and request.dtype.itemsize == 2 and not strategy.deepspeed
        setups = {
            TrainingSetup.LORA: request.peft_config is not None,
            TrainingSetup.CACHED_REFERENCE: request.reference == "precomputed",
            TrainingSetup.ZERO_1_2: strategy.kind in ("zero1", "zero2"),
            TrainingSetup.ZERO_3: strategy.kind == "zero3",
            TrainingSetup.FSDP: strategy.kind == "fsdp2",
            TrainingSetup.SIXTEEN_BITS: full_16_bit and strategy.kind != "fsdp2",
        }
        components: list[Component] = [*request.objective.terms, *request.wrappers]
        require_supported(components, [setup for setup, holds in setups.items() if holds])
        if strategy.offload_optimizer and not request.optimizer_name.startswith("adamw_torch"):
            raise input_error(
                expected=f"optim=adamw_torch under {strategy.name}",
                got=f"optim={request.optimizer_name}",
                why="DeepSpeed makes the step on the CPU with its own Adam",
                fix="leave --optim out",
            )

    def _live_roles(self, plan: ReferencePlan) -> frozenset[Role]:
        """Roles whose rows go through a forward of the reference in every step."""
        needs = self.request.objective.needs
        called = frozenset() if plan.looked_up else needs.reference_live
        return called if plan.logps is ReferenceMode.PRECOMPUTED else called | needs.reference_logps

    def _compute(self, sizes: Precision) -> Compute:
        """How the decoder computes in this precision."""
        request = self.request
        return Compute(
            sizes.compute,
            sizes.autocast,
            request.attention,
            request.checkpointing,
            request.dropout,
            sizes.fp32_adapters,
        )

    def _decoder(self, compute: Compute, reference_rows: int) -> Activations:
        """What the decoder takes."""
        request, key = self.request, (compute, reference_rows)
        if key not in self._decoders:
            self._decoders[key] = measure_activations(
                request.config,
                request.peft_config,
                compute,
                rows=request.rows,
                length=request.length,
                blocks=self._differentiated(),
                reference_rows=reference_rows,
            )
        return self._decoders[key]

    def _head(self, compute: Compute, top_k: int | None, free: int) -> HeadCost:
        """What the output head takes, where so many bytes are free when it runs: the chunks are those of a run."""
        request, vocabulary = self.request, self.request.config.vocab_size
        room = max(0, free) if self.counts.trains_head else 0
        memory = None if request.on_cpu else DeviceMemory(self.hardware.total, room)
        chunks = chunk_sizes(vocabulary, torch.float32.itemsize, memory)
        tokens = {role: request.answer_tokens({role}) for role in Role}
        # No more than all logits are kept, so that strategies that leave enough room share one measurement.
        most = sum(tokens.values()) * vocabulary * torch.float32.itemsize * (1 + len(request.objective.terms))
        chunks = replace(chunks, kept_bytes=min(chunks.kept_bytes, most))
        key = (compute, top_k, chunks)
        if key not in self._heads:
            shape = HeadShape(request.config.hidden_size, vocabulary, self.counts.trains_head, chunks)
            needed = request.objective.needs.logps
            self._heads[key] = measure_head(
                shape, compute, request.objective, tokens, differentiated=needed, top_k=top_k
            )
        return self._heads[key]

    def _differentiated(self) -> int:
        """Decoder blocks with a graph: below the deepest layer that is read where no loss reads log-probs."""
        objective, layers = self.request.objective, self.request.config.num_hidden_layers
        if objective.needs.logps:
            return layers
        return max(block_number(layer, layers) for layer in objective.layers)

    def _reference_weights(self, plan: ReferencePlan, strategy: Strategy, gpus: int) -> int:
        if ReferenceMode.HIDDEN_STATES in plan.modes:
            # A copy of a head that is trained; else it is the model's own.
            counts = self.counts
            weights = counts.embedding if counts.tied else counts.head
            return counts.trains_head * weights * self.request.dtype.itemsize
        if ReferenceMode.FROZEN_COPY not in plan.modes:
            return 0
        mixed = self.request.mixed
        size = mixed.itemsize if strategy.deepspeed and mixed is not None else self.request.dtype.itemsize
        whole = (self.counts.total - self.counts.adapters) * size
        if self.request.quantised is not None:
            whole += round(self.counts.linear * (self.request.quantised - size))
        if strategy.offload_parameters:
            return 0
        return math.ceil(whole / gpus) if strategy.sharded else whole
