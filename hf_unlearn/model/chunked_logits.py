"""Functions of next-token distributions at answer tokens, computed and differentiated in fp32, chunk by chunk."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import input_error
from .chunk_sizes import ChunkSizes, chunk_sizes, device_memory
from .head_query import HeadQuery, TokenReadout
from .logit_pieces import add_gradient, gradient, softmax, write_logps, write_values
from .logit_provider import DenseLogits, LogitProvider, softmax_dtype


def read_positions(
    inputs: Tensor,
    query: HeadQuery,
    provider: LogitProvider,
    weights: Sequence[Tensor],
    vocabulary: int,
    sizes: ChunkSizes | None = None,
) -> Tensor:
    """log softmax(z_t)[y_t] of T tokens, then the values of each readout, as one flat tensor; nats, fp32.

    Neither pass holds softmaxes of more than a chunk. Where no weight of the head is trained, derivatives by `inputs`
    are taken along with the values, and the backward pass multiplies them by one number a token. Otherwise the logits
    of the last chunks stay for it, as far as memory is given to them, and it computes those of the others again.
    `HeadQuery.split` takes the flat tensor apart.

    Args:
        inputs: [T, H], what the provider makes logits of.
        query: its targets and readouts, on the device of the inputs.
        provider: makes logits [t, V].
        weights: of the provider, those that are trained.
        vocabulary: V.
        sizes: of chunks; None for those of the inputs' device.
    """
    if sizes is None:
        memory = device_memory(inputs.device, keeps=len(weights) > 0 and torch.is_grad_enabled())
        sizes = chunk_sizes(vocabulary, softmax_dtype(inputs.dtype).itemsize, memory)
    return _Positions.apply(inputs, query.targets, query, provider, sizes, *weights)


class _Positions(torch.autograd.Function):
    """One node of the graph for log-probs and readouts: the only tensors of size V are those of chunks."""

    @staticmethod
    def forward(
        ctx: Any,
        inputs: Tensor,
        targets: Tensor,
        query: HeadQuery,
        provider: LogitProvider,
        sizes: ChunkSizes,
        *weights: Tensor,
    ) -> Tensor:
        rows, tokens = sizes.rows, len(targets)
        chunks = [slice(start, min(start + rows, tokens)) for start in range(0, tokens, rows)]
        # The first chunk is computed before the results have a type: a head may put out another one than its inputs.
        raw = provider.logits(inputs[: min(rows, tokens)])
        dtype = softmax_dtype(raw.dtype)
        logps = torch.empty(tokens, dtype=dtype, device=inputs.device)
        values = [_empty_values(query, readout, logps) for readout in query.readouts]
        slopes = _Slopes.room(ctx.needs_input_grad, inputs, query, raw, provider) if len(chunks) > 1 else None
        kept_from = tokens
        if slopes is None and tokens and any(ctx.needs_input_grad):
            kept_from = sizes.kept_from(tokens, raw.shape[-1] * raw.itemsize * (1 + len(query.readouts)))
        kept: dict[int, tuple[Tensor, Sequence[Tensor | None]]] = {}
        overwrite = sizes.reuse and provider.overwritable
        for chunk in chunks:
            if chunk.start:
                raw = provider.logits(inputs[chunk], raw if overwrite and chunk.start - rows not in kept else None)
            z = raw.to(dtype)
            write_logps(z, targets[chunk], logps[chunk], sizes.piece)
            references = []
            for readout, into in zip(query.readouts, values, strict=True):
                inside, own = query.overlap(readout, chunk)
                references.append(_reference_logits(readout, own, z[inside]))
                write_values(readout, z[inside], targets[chunk][inside], references[-1], into[own], sizes.piece)
            if slopes is not None:
                slopes.add_readouts(chunk, query, provider, inputs[chunk], raw, z, references, sizes.piece)
                slopes.add_logps(chunk, query, provider, inputs[chunk], raw, z, overwrite=overwrite)
            if chunk.start >= kept_from:
                kept[chunk.start] = raw, references
        ctx.save_for_backward(inputs, targets, logps)
        ctx.provider, ctx.query, ctx.chunks, ctx.kept, ctx.weights = provider, query, chunks, kept, weights
        ctx.slopes, ctx.overwrite, ctx.piece = slopes, overwrite, sizes.piece
        return torch.cat([logps, *(part.flatten() for part in values)]) if values else logps

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
        spare: Tensor | None = None  # logits that are done with
        # From the end, where logits were kept; each is let go of, and computed again for a graph that is kept.
        for chunk in reversed(ctx.chunks):
            kept = ctx.kept.pop(chunk.start, None)
            raw, references = (ctx.provider.logits(inputs[chunk], spare), None) if kept is None else kept
            kept = spare = None
            z = raw.to(logps.dtype)
            # d lp / d z = onehot(y) - softmax(z)
            grad_logits = softmax(z, overwrite=ctx.overwrite and not query.readouts).mul_(-grad_logps[chunk, None])
            grad_logits.scatter_add_(-1, targets[chunk, None], grad_logps[chunk, None])
            for i, readout in enumerate(query.readouts):
                inside, own = query.overlap(readout, chunk)
                if own.stop > own.start:
                    reference = _reference_logits(readout, own, z[inside]) if references is None else references[i]
                    upstream = grad_values[readout.name][own]
                    # grad_logits[inside] is a view: what is added to it is added to the chunk's gradient.
                    read = readout, z[inside], targets[chunk][inside], reference, upstream
                    add_gradient(grad_logits[inside], *read, ctx.piece)
            back = ctx.provider.backward(inputs[chunk], raw, grad_logits, gradients)
            if grad_inputs is not None:
                grad_inputs[chunk] = back
            spare = raw if ctx.overwrite else None
            del raw, z, grad_logits, references
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
        self,
        chunk: slice,
        query: HeadQuery,
        provider: LogitProvider,
        inputs: Tensor,
        raw: Tensor,
        z: Tensor,
        *,
        overwrite: bool,
    ) -> None:
        """Take those of a chunk's log-probs, given its logits; with `overwrite`, the last that is done with them."""
        whole = slice(0, len(z))
        if any(readout.alone and query.overlap(readout, chunk)[0] == whole for readout in query.readouts):
            return
        # d lp / d z = onehot(y) - softmax(z)
        by_logits = softmax(z, overwrite=overwrite).neg_()
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
        piece: int,
    ) -> None:
        """Take those of what is read of a chunk, given its logits as they are (`raw`) and in fp32 (`z`)."""
        targets = query.targets[chunk]
        for readout, into, reference in zip(query.readouts, self.readouts, references, strict=True):
            inside, own = query.overlap(readout, chunk)
            if own.stop > own.start:
                by_logits = gradient(readout, z[inside], targets[inside], reference, piece)
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
    """Zeros into which a weight's gradient is summed over chunks, not in 16 bits; None for a weight that gets none."""
    if not weight.requires_grad:
        return None
    return torch.zeros_like(weight, dtype=softmax_dtype(weight.dtype) if chunks > 1 else weight.dtype)


def log_prob_moments(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of log p(v) for v ~ p = softmax(z_t): logits [t, V] -> two of [t], nats."""
    logps = logits.log_softmax(-1)
    probabilities = logps.exp()
    logps = logps.nan_to_num(neginf=0.0)  # 0 log 0 = 0; a NaN stays one through the probabilities
    mean = (probabilities * logps).sum(-1)
    # About the mean, not E[x^2] - E[x]^2, whose difference is lost to rounding where a token is all but certain.
    deviation = (probabilities * (logps - mean[:, None]).square()).sum(-1).sqrt()
    return mean, deviation
