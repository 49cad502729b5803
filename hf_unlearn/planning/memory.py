"""The memory of one GPU over a training step, by part, at the moment where the sum is highest."""

import math
from dataclasses import asdict, dataclass, fields, replace

from ..component import Component, TrainingSetup, require_supported
from ..data.roles import Role
from ..errors import input_error
from ..model.hidden_states import block_number
from ..training.reference.plan import ReferenceContext, ReferenceMode, ReferencePlan, plan_reference
from .activations import Activations, Compute, measure_activations
from .counts import Counts, count_parameters
from .head import HeadCost, HeadShape, measure_head
from .request import Request
from .strategies import Precision, States, Strategy, precision, states


@dataclass(frozen=True)
class MemoryBreakdown:
    """Bytes of one GPU at one moment."""

    weights: int = 0
    gradients: int = 0
    optimizer: int = 0
    reference: int = 0
    activations: int = 0
    logits: int = 0

    @property
    def total(self) -> int:
        """Their sum."""
        return sum(asdict(self).values())

    def __add__(self, other: "MemoryBreakdown") -> "MemoryBreakdown":
        return MemoryBreakdown(
            **{part.name: getattr(self, part.name) + getattr(other, part.name) for part in fields(self)}
        )


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

    def __init__(self, request: Request) -> None:
        self.request = request
        self.counts: Counts = count_parameters(request.config, request.peft_config)
        self._measured: dict[tuple[Compute, int], tuple[Activations, HeadCost]] = {}

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
        measured = self._measure(sizes, sum(request.rows_of(role) for role in live), top_k)
        frozen = ReferenceMode.FROZEN_COPY in plan.modes
        step = _Step(request, counts, sizes, held, *measured, live, dense=strategy.sharded and frozen)
        return Memory(step.moments(self._reference_weights(plan, strategy, gpus)), str(plan), held.host)

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
        called = needs.reference_live if plan.live is not ReferenceMode.TOP_K else frozenset()
        return called if plan.logps is ReferenceMode.PRECOMPUTED else called | needs.reference_logps

    def _measure(self, sizes: Precision, reference_rows: int, top_k: int | None) -> tuple[Activations, HeadCost]:
        """What decoder and head take in this precision."""
        request, counts = self.request, self.counts
        compute = Compute(
            sizes.compute,
            sizes.autocast,
            request.attention,
            request.checkpointing,
            request.dropout,
            sizes.fp32_adapters,
        )
        key = (compute, reference_rows)
        if key not in self._measured:
            activations = measure_activations(
                request.config,
                request.peft_config,
                compute,
                rows=request.rows,
                length=request.length,
                blocks=self._differentiated(),
                reference_rows=reference_rows,
            )
            shape = HeadShape(request.config.hidden_size, request.config.vocab_size, counts.trains_head, request.chunk)
            tokens = {role: request.answer_tokens({role}) for role in Role}
            needed = request.objective.needs.logps
            head = measure_head(shape, compute, request.objective, tokens, differentiated=needed, top_k=top_k)
            self._measured[key] = activations, head
        return self._measured[key]

    def _differentiated(self) -> int:
        """Decoder blocks with a graph: below the deepest layer that is read where no loss reads log-probs."""
        objective, layers = self.request.objective, self.request.config.num_hidden_layers
        if objective.needs.logps:
            return layers
        return max(block_number(layer, layers) for layer in objective.layers)

    def _reference_weights(self, plan: ReferencePlan, strategy: Strategy, gpus: int) -> int:
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


@dataclass(frozen=True)
class _Step:
    """The moments of an optimizer step."""

    request: Request
    counts: Counts
    sizes: Precision
    held: States
    activations: Activations
    head: HeadCost
    live: frozenset[Role]
    dense: bool  # the reference's logits are kept whole

    def moments(self, reference: int) -> dict[str, MemoryBreakdown]:
        """Parts by moment.

        Args:
            reference: bytes of the reference's own weights.
        """
        held, acts, head, request = self.held, self.activations, self.head, self.request
        accumulated = held.gradients if request.accumulation > 1 else 0
        resting = MemoryBreakdown(held.weights, held.buffers + accumulated, held.optimizer, reference)
        computing = resting + MemoryBreakdown(weights=held.gathered)
        known = self._reference_values()
        moments = {}
        if self.live:
            moments["reference forward"] = computing + MemoryBreakdown(reference=acts.no_grad + known)
        forward = computing + MemoryBreakdown(reference=known)
        heading = resting + MemoryBreakdown(weights=held.head_gathered, reference=known)
        moments["forward"] = forward + MemoryBreakdown(activations=acts.forward)
        read = request.objective.needs.logps
        if read or request.watched:
            moments["head forward"] = heading + MemoryBreakdown(activations=acts.forward_end, logits=head.forward)
        if read:
            whole = self._head_gradient()
            logits = max(head.backward - whole, 0)
            moments["head backward"] = heading + MemoryBreakdown(
                gradients=whole, activations=acts.saved, logits=logits
            )
        computing += MemoryBreakdown(gradients=held.block_buffers)
        waiting = held.head_gradient + (self._head_gradient() if self.counts.tied and not held.head_gradient else 0)
        moments["backward"] = computing + MemoryBreakdown(gradients=waiting, activations=acts.backward)
        rest = held.gradients - accumulated
        first = rest - min(rest, self._last_gradients())
        moments["first block's backward"] = computing + MemoryBreakdown(gradients=first, activations=acts.backward_end)
        moments["embedding's backward"] = computing + MemoryBreakdown(
            gradients=rest + self._embedding_gradient(), activations=self._hidden()
        )
        moments["optimizer"] = MemoryBreakdown(
            held.weights, held.step_gradients, held.optimizer + held.step, reference
        )
        return moments

    def _reference_values(self) -> int:
        """What is kept of the reference's forward until the losses are computed."""
        request, needs, size = self.request, self.request.objective.needs, self.sizes.compute.itemsize
        width = request.config.hidden_size * size
        looked_up = 0 if self.live else request.answer_tokens(needs.reference_logits) * request.top_k * (8 + 4)
        # A forward of the reference keeps the hidden states of all its rows, or their logits.
        kept = self.live if needs.reference_logits else frozenset()
        distributions = request.answer_tokens(kept) * (request.config.vocab_size * size if self.dense else width)
        layers = len(request.objective.reference_layers)
        return looked_up + distributions + layers * request.answer_tokens(needs.reference_hidden) * width

    def _hidden(self) -> int:
        """The gradient by the embeddings."""
        return self.request.rows * self.request.length * self.request.config.hidden_size * self.sizes.compute.itemsize

    def _head_gradient(self) -> int:
        counts = self.counts
        return counts.trains_head * (counts.embedding if counts.tied else counts.head) * self.sizes.trained

    def _last_gradients(self) -> int:
        """Of the first block and the embedding below it, which are not there yet when that block begins."""
        counts = self.counts
        embedding = counts.embedding if counts.trains_embedding and not counts.tied else 0
        share = self.held.gradients / max(counts.trained, 1)  # bytes an element, here
        return round((counts.trained_block + embedding) * share)

    def _embedding_gradient(self) -> int:
        """A tied weight gets two gradients, which are summed into a third when both are there."""
        extra = 2 if self.counts.tied else int(self.request.accumulation > 1)
        return extra * self.counts.embedding * self.sizes.trained * self.counts.trains_embedding
