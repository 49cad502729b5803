"""The moments of an optimizer step, and what lies on one GPU at each, by part."""

from dataclasses import asdict, dataclass, fields

from ..data.roles import Role
from ..training.reference.plan import ReferenceMode
from .activations import Activations
from .counts import Counts
from .head import HeadCost
from .request import Request
from .strategies import Precision, States


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
class Step:
    """The moments of an optimizer step."""

    request: Request
    counts: Counts
    sizes: Precision
    held: States
    activations: Activations
    live: frozenset[Role]
    dense: bool  # the reference's logits are kept whole

    @property
    def _accumulated(self) -> int:
        """Gradients that are there already when a forward begins."""
        return self.held.gradients if self.request.accumulation > 1 else 0

    def _resting(self, reference: int) -> MemoryBreakdown:
        held = self.held
        return MemoryBreakdown(held.weights, held.buffers + self._accumulated, held.optimizer, reference)

    def before_head(self, reference: int) -> MemoryBreakdown:
        """What is there when the head runs, itself aside."""
        weights, known = self.held.head_gathered, self._reference_values()
        heading = self._resting(reference) + MemoryBreakdown(weights=weights, reference=known)
        return heading + MemoryBreakdown(activations=self.activations.forward_end)

    def moments(self, head: HeadCost, reference: int) -> dict[str, MemoryBreakdown]:
        """Parts by moment.

        Args:
            head: what the output head takes.
            reference: bytes of the reference's own weights.
        """
        held, acts, request, accumulated = self.held, self.activations, self.request, self._accumulated
        resting = self._resting(reference)
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
            moments["head forward"] = self.before_head(reference) + MemoryBreakdown(logits=head.forward)
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
        each = width if request.reference == ReferenceMode.HIDDEN_STATES else request.top_k * (8 + 4)
        looked_up = 0 if self.live else request.answer_tokens(needs.reference_logits) * each
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
