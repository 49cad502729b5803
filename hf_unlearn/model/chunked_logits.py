"""Functions of next-token distributions at answer tokens, computed and differentiated in fp32, chunk by chunk."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from ..errors import input_error
from .head_query import HeadQuery, TokenReadout

# Elements of one fp32 chunk of logits, whatever the vocabulary: 64 MB on a CPU. A GPU needs more rows at a time to be
# busy: 256 MB.
_CHUNK_ELEMENTS = 1 << 24
_GPU_CHUNK_ELEMENTS = 1 << 26


def chunk_rows(vocabulary: int, device: torch.device) -> int:
    """Positions whose logits are in fp32 at one time."""
    elements = _CHUNK_ELEMENTS if device.type == "cpu" else _GPU_CHUNK_ELEMENTS
    return max(1, elements // vocabulary)


def softmax_dtype(dtype: torch.dtype) -> torch.dtype:
    """fp32, or fp64 where the model itself is in fp64."""
    return torch.promote_types(dtype, torch.float32)


class LogitProvider(Protocol):
    """Where the logits of positions come from: tensors that are there, or an output head."""

    def logits(self, inputs: Tensor) -> Tensor:
        """Logits of a chunk, [t, V], in the precision that the model puts out; without a graph."""
        ...

    def backward(self, inputs: Tensor, logits: Tensor, grad_logits: Tensor, gradients: list[Tensor | None]) -> Tensor:
        """The gradient by `inputs` of a chunk, given its logits and that by them; the weights' go to `gradients`."""
        ...


@dataclass(frozen=True)
class DenseLogits:
    """Logits that are held whole, [T, V]: those of a model as its inputs, or those of a reference as `tensor`."""

    tensor: Tensor | None = None

    def logits(self, inputs: Tensor) -> Tensor:
        """The inputs themselves."""
        return inputs

    def backward(self, inputs: Tensor, logits: Tensor, grad_logits: Tensor, gradients: list[Tensor | None]) -> Tensor:
        """The gradient of the logits itself."""
        return grad_logits

    def at(self, part: slice, logits: Tensor) -> Tensor:
        """Those of a stretch of tokens."""
        assert self.tensor is not None
        return self.tensor[part].to(logits.dtype)


def read_positions(
    inputs: Tensor, query: HeadQuery, provider: LogitProvider, weights: Sequence[Tensor], vocabulary: int
) -> Tensor:
    """log softmax(z_t)[y_t] of T tokens, then the values of each readout, as one flat tensor; nats, fp32.

    Neither pass holds logits or softmaxes of more than a chunk. Where no weight of the head is trained, derivatives by
    `inputs` are taken along with the values, and the backward pass multiplies them by one number a token. Otherwise it
    computes each chunk again, unless there is only one. `HeadQuery.split` takes the flat tensor apart.

    Args:
        inputs: [T, H], what the provider makes logits of.
        query: its targets and readouts, on the device of the inputs.
        provider: makes logits [t, V].
        weights: of the provider, those that are trained.
        vocabulary: V.
    """
    return _Positions.apply(inputs, query.targets, query, provider, chunk_rows(vocabulary, inputs.device), *weights)


class _Positions(torch.autograd.Function):
    """One node of the graph for log-probs and readouts: the only tensors of size V are those of one chunk."""

    @staticmethod
    def forward(
        ctx: Any,
        inputs: Tensor,
        targets: Tensor,
        query: HeadQuery,
        provider: LogitProvider,
        rows: int,
        *weights: Tensor,
    ) -> Tensor:
        chunks = [slice(start, min(start + rows, len(targets))) for start in range(0, len(targets), rows)]
        # The first chunk is computed before the results have a type: a head may put out another one than its inputs.
        raw = provider.logits(inputs[: min(rows, len(inputs))])
        dtype = softmax_dtype(raw.dtype)
        logps = torch.empty(len(targets), dtype=dtype, device=inputs.device)
        values = [_empty_values(query, readout, logps) for readout in query.readouts]
        slopes = _Slopes.room(ctx.needs_input_grad, inputs, query, raw, provider) if len(chunks) > 1 else None
        kept = None
        for i, chunk in enumerate(chunks):
            raw = raw if i == 0 else provider.logits(inputs[chunk])
            z = raw.to(dtype)
            every_logp = z.log_softmax(-1)
            logps[chunk] = every_logp.gather(-1, targets[chunk, None]).squeeze(-1)
            if slopes is not None:
                slopes.add_logps(chunk, query, provider, inputs[chunk], raw, every_logp)
            del every_logp  # as large as the chunk, beside what readouts and their references take
            references = []
            for readout, into in zip(query.readouts, values, strict=True):
                inside, own = query.overlap(readout, chunk)
                references.append(_reference_logits(readout, own, z[inside]))
                if own.stop > own.start:
                    into[own] = readout.function(z[inside], targets[chunk][inside], references[-1])
            if slopes is not None:
                slopes.add_readouts(chunk, query, provider, inputs[chunk], raw, z, references)
            # A single chunk stays until the backward pass: no larger than what that would hold anyway.
            if len(chunks) == 1 and any(ctx.needs_input_grad):
                kept = (raw, references)
        ctx.save_for_backward(inputs, targets, logps)
        ctx.provider, ctx.query, ctx.chunks, ctx.kept, ctx.weights = provider, query, chunks, kept, weights
        ctx.slopes = slopes
        return torch.cat([logps, *(part.flatten() for part in values)])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        if torch.is_grad_enabled():
            raise input_error(
                expected="a first derivative of log-probs",
                got="create_graph=True, for a second one",
                why="the logits are computed again in the backward pass, without a graph",
                fix="call the model itself and take log-probs of its logits",
            )
        inputs, targets, logps = ctx.saved_tensors
        query: HeadQuery = ctx.query
        grad_inputs = torch.zeros_like(inputs) if ctx.needs_input_grad[0] else None
        gradients = [_accumulator(weight, len(ctx.chunks)) for weight in ctx.weights]
        grad_logps, grad_values = query.split(grad)
        if ctx.slopes is not None:
            return ctx.slopes.times(query, grad_logps, grad_values).to(inputs.dtype), *[None] * 4, *gradients
        for chunk in ctx.chunks:
            raw, references = (ctx.provider.logits(inputs[chunk]), None) if ctx.kept is None else ctx.kept
            z = raw.to(logps.dtype)
            # d lp / d z = onehot(y) - softmax(z)
            grad_logits = z.softmax(-1).mul_(-grad_logps[chunk, None])
            grad_logits.scatter_add_(-1, targets[chunk, None], grad_logps[chunk, None])
            for i, readout in enumerate(query.readouts):
                inside, own = query.overlap(readout, chunk)
                if own.stop > own.start:
                    reference = _reference_logits(readout, own, z[inside]) if references is None else references[i]
                    upstream = grad_values[readout.name][own]
                    # grad_logits[inside] is a view: what is added to it is added to the chunk's gradient.
                    _add_gradient(grad_logits[inside], readout, z[inside], targets[chunk][inside], reference, upstream)
            back = ctx.provider.backward(inputs[chunk], raw, grad_logits, gradients)
            if grad_inputs is not None:
                grad_inputs[chunk] = back
        ctx.kept = None  # a graph that is kept computes the chunk again, rather than hold it for good
        grad_weights = (None if g is None else g.to(w.dtype) for g, w in zip(gradients, ctx.weights, strict=True))
        return grad_inputs, None, None, None, None, *grad_weights


@dataclass(frozen=True)
class _Slopes:
    """Derivatives of each token's values by its input: all that a backward pass needs where no weight is trained.

    They are taken while the chunk's logits are there, which saves computing them again: a third of the head's work for
    log-probs. The gradient from the loss is one number a token, and multiplies them later.

    Attributes:
        logps: of the log-probs, [T, H].
        readouts: of the values of each readout, [t, H].
    """

    logps: Tensor
    readouts: Sequence[Tensor]

    @classmethod
    def room(
        cls, needs_input_grad: Sequence[bool], inputs: Tensor, query: HeadQuery, raw: Tensor, provider: LogitProvider
    ) -> "_Slopes | None":
        """Room for them; None where they would not do: weights are trained, or a token has several values."""
        wanted, *others = needs_input_grad
        if not wanted or any(others) or any(readout.width > 1 for readout in query.readouts):
            return None
        # In fp16 they are rounded to nothing, where a gradient that the scaler has made large is not. Logits that are
        # held whole need not be computed again.
        if raw.dtype == torch.float16 or isinstance(provider, DenseLogits):
            return None
        counts = [len(inputs), *(query.count(readout) for readout in query.readouts)]
        own, *read = (inputs.new_zeros((count, inputs.shape[-1])) for count in counts)
        return cls(own, read)

    def add_logps(
        self, chunk: slice, query: HeadQuery, provider: LogitProvider, inputs: Tensor, raw: Tensor, every_logp: Tensor
    ) -> None:
        """Take those of a chunk's log-probs, given its logits as they are; overwrites its log-probs of all tokens."""
        whole = slice(0, len(every_logp))
        if any(readout.alone and query.overlap(readout, chunk)[0] == whole for readout in query.readouts):
            return
        # d lp / d z = onehot(y) - softmax(z)
        by_logits = every_logp.exp_().neg_()
        by_logits.scatter_add_(-1, query.targets[chunk, None], torch.ones_like(by_logits[:, :1]))
        self.logps[chunk] = provider.backward(inputs, raw, by_logits, [])

    def add_readouts(
        self,
        chunk: slice,
        query: HeadQuery,
        provider: LogitProvider,
        inputs: Tensor,
        raw: Tensor,
        z: Tensor,
        references: Sequence[Tensor | None],
    ) -> None:
        """Take those of what is read of a chunk, given its logits as they are (`raw`) and in fp32 (`z`)."""
        targets = query.targets[chunk]
        for readout, into, reference in zip(query.readouts, self.readouts, references, strict=True):
            inside, own = query.overlap(readout, chunk)
            if own.stop > own.start:
                by_logits = _gradient(readout, z[inside], targets[inside], reference)
                into[own] = provider.backward(inputs[inside], raw[inside], by_logits, [])

    def times(self, query: HeadQuery, grad_logps: Tensor, grad_values: Mapping[str, Tensor]) -> Tensor:
        """The gradient by the inputs, [T, H], given that by the values."""
        grad = self.logps * grad_logps[:, None]
        for readout, slopes in zip(query.readouts, self.readouts, strict=True):
            grad[query.tokens[readout.role]] += slopes * grad_values[readout.name][:, None]
        return grad


def _empty_values(query: HeadQuery, readout: TokenReadout, like: Tensor) -> Tensor:
    tokens = query.count(readout)
    return like.new_empty(tokens if readout.width == 1 else (tokens, readout.width))


def _reference_logits(readout: TokenReadout, own: slice, logits: Tensor) -> Tensor | None:
    """The reference's logits at a stretch of the role's tokens; None where there are none, or nothing to read."""
    return None if readout.reference is None or own.stop == own.start else readout.reference.at(own, logits)


def _accumulator(weight: Tensor, chunks: int) -> Tensor | None:
    """Zeros into which a weight's gradient is summed over chunks; None for a weight that gets none."""
    if not weight.requires_grad:
        return None
    # Sums of many chunks are not rounded to 16 bits after each.
    return torch.zeros_like(weight, dtype=softmax_dtype(weight.dtype) if chunks > 1 else weight.dtype)


def _gradient(readout: TokenReadout, z: Tensor, targets: Tensor, reference: Tensor | None) -> Tensor:
    """The derivative by the logits of a readout's values, one a token: [t, V]."""
    known = None if readout.gradient is None else readout.gradient(z, targets, reference)
    if known is not None:
        return known
    return _differentiated(readout, z, targets, reference, z.new_ones(len(z)))


def _add_gradient(
    grad_logits: Tensor, readout: TokenReadout, z: Tensor, targets: Tensor, reference: Tensor | None, upstream: Tensor
) -> None:
    """Add the gradient by the logits of a readout's values, times the gradient that comes from the loss."""
    known = None if readout.gradient is None else readout.gradient(z, targets, reference)
    if known is not None:
        grad_logits.addcmul_(known, upstream[:, None])
    else:
        grad_logits.add_(_differentiated(readout, z, targets, reference, upstream))


def _differentiated(
    readout: TokenReadout, z: Tensor, targets: Tensor, reference: Tensor | None, upstream: Tensor
) -> Tensor:
    with torch.enable_grad():
        leaf = z.detach().requires_grad_()
        values = readout.function(leaf, targets, reference)
    return torch.autograd.grad(values, leaf, upstream)[0]


def log_prob_moments(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of log p(v) for v ~ p = softmax(z_t): logits [t, V] -> two of [t], nats."""
    logps = logits.log_softmax(-1)
    probabilities = logps.exp()
    logps = logps.nan_to_num(neginf=0.0)  # 0 log 0 = 0; a NaN stays one through the probabilities
    mean = (probabilities * logps).sum(-1)
    # About the mean, not E[x^2] - E[x]^2, whose difference is lost to rounding where a token is all but certain.
    deviation = (probabilities * (logps - mean[:, None]).square()).sum(-1).sqrt()
    return mean, deviation
