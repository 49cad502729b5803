"""Stage 2b, functions of next-token distributions at answer positions, in fp32 and chunk by chunk. No loss here."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from ..data.roles import Role
from ..errors import input_error

# Elements of one fp32 chunk of logits, whatever the vocabulary: 64 MB on a CPU. A GPU needs more rows at a time to be
# busy: 256 MB.
_CHUNK_ELEMENTS = 1 << 24
_GPU_CHUNK_ELEMENTS = 1 << 26

# (logits [t, V] in fp32 or fp64, token ids [t], the reference's logits [t, V] or None) -> [t], or [t, width]
PositionFunction = Callable[[Tensor, Tensor, Tensor | None], Tensor]


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


class ReferenceLogits(Protocol):
    """Where the reference's logits at the tokens of one role come from."""

    def at(self, part: slice, logits: Tensor) -> Tensor:
        """Those of a stretch of the role's tokens, [t, V], in the precision of the model's own `logits` there."""
        ...


@dataclass(frozen=True)
class DenseLogits:
    """Logits that are there, [T, V]: as a source, and as those of a reference."""

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


@dataclass(frozen=True)
class TokenReadout:
    """What is read of the distributions at the answer tokens of one role, or of all rows of a batch.

    Attributes:
        key: what the values are found under.
        role: whose tokens; None for those of every row, whatever it is there for.
        function: differentiable in its first argument.
        grad_logits: the derivative of the function by the logits [t, V], where it is known; None, or a result of
            None, for autograd's.
        reference: where the third argument comes from.
        width: values a position.
    """

    key: Hashable
    role: Role | None
    function: PositionFunction
    grad_logits: Callable[[Tensor, Tensor, Tensor | None], Tensor | None] | None = None
    reference: ReferenceLogits | None = None
    width: int = 1


@dataclass(frozen=True)
class Placed:
    """A reading and the tokens that it is of: a stretch of the T answer tokens of a batch."""

    reading: TokenReadout
    tokens: slice

    def within(self, part: slice) -> tuple[slice, slice]:
        """What a chunk holds of the tokens: as places in the chunk, and as places in the stretch."""
        start, stop = max(part.start, self.tokens.start), min(part.stop, self.tokens.stop)
        stop = max(start, stop)
        return slice(start - part.start, stop - part.start), slice(start - self.tokens.start, stop - self.tokens.start)


def read_positions(
    inputs: Tensor,
    targets: Tensor,
    source: LogitProvider,
    placed: Sequence[Placed],
    weights: Sequence[Tensor],
    vocabulary: int,
) -> Tensor:
    """log softmax(z_t)[y_t] of T tokens, then the values of each reading, as one flat tensor; nats, fp32.

    Neither pass holds logits or softmaxes of more than a chunk: the backward pass computes each chunk again, unless
    there is one alone.

    Args:
        inputs: [T, H], what the source makes logits of.
        targets: y_t, [T].
        source: makes logits [t, V].
        placed: what is read beside the log-probs.
        weights: of the source, those that are trained.
        vocabulary: V.
    """
    return _Positions.apply(inputs, targets, source, tuple(placed), chunk_rows(vocabulary, inputs.device), *weights)


class _Positions(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, targets: Tensor, source: LogitProvider, placed: Any, rows: int, *weights: Tensor
    ) -> Tensor:
        parts = _parts(len(targets), rows)
        raw = source.logits(inputs[: min(rows, len(inputs))])
        dtype = softmax_dtype(raw.dtype)
        normalisers = torch.empty(len(targets), dtype=dtype, device=inputs.device)
        logps = torch.empty_like(normalisers)
        values = [_room(each, normalisers) for each in placed]
        kept = None
        for i, part in enumerate(parts):
            raw = raw if i == 0 else source.logits(inputs[part])
            z = raw.to(dtype)
            normalisers[part] = z.logsumexp(-1)
            logps[part] = z.gather(-1, targets[part, None]).squeeze(-1) - normalisers[part]
            references = []
            for each, into in zip(placed, values, strict=True):
                inside, own = each.within(part)
                references.append(_reference(each, own, z[inside]))
                if own.stop > own.start:
                    into[own] = each.reading.function(z[inside], targets[part][inside], references[-1])
            if len(parts) == 1 and any(ctx.needs_input_grad):
                kept = (raw, references)
        ctx.save_for_backward(inputs, targets, normalisers)
        ctx.source, ctx.placed, ctx.parts, ctx.kept, ctx.weights = source, placed, parts, kept, weights
        return torch.cat([logps, *(each.flatten() for each in values)])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        if torch.is_grad_enabled():
            raise input_error(
                expected="a first derivative of log-probs",
                got="create_graph=True, for a second one",
                why="the logits are computed again in the backward pass, without a graph",
                fix="call the model itself and take log-probs of its logits",
            )
        inputs, targets, normalisers = ctx.saved_tensors
        grad_inputs = torch.zeros_like(inputs) if ctx.needs_input_grad[0] else None
        gradients = [_accumulator(weight, len(ctx.parts)) for weight in ctx.weights]
        grad_logps, grad_values = _split(grad, len(targets), ctx.placed)
        for part in ctx.parts:
            raw, references = (ctx.source.logits(inputs[part]), None) if ctx.kept is None else ctx.kept
            z = raw.to(normalisers.dtype)
            # d lp / d z = onehot(y) - softmax(z)
            grad_logits = (z - normalisers[part, None]).exp_().mul_(-grad_logps[part, None])
            grad_logits.scatter_add_(-1, targets[part, None], grad_logps[part, None])
            for i, (each, upstream) in enumerate(zip(ctx.placed, grad_values, strict=True)):
                inside, own = each.within(part)
                if own.stop > own.start:
                    reference = _reference(each, own, z[inside]) if references is None else references[i]
                    _add_grad_logits(
                        grad_logits[inside], each.reading, z[inside], targets[part][inside], reference, upstream[own]
                    )
            back = ctx.source.backward(inputs[part], raw, grad_logits, gradients)
            if grad_inputs is not None:
                grad_inputs[part] = back
        ctx.kept = None
        found = (None if g is None else g.to(w.dtype) for g, w in zip(gradients, ctx.weights, strict=True))
        return grad_inputs, None, None, None, None, *found


def _parts(tokens: int, rows: int) -> list[slice]:
    return [slice(start, min(start + rows, tokens)) for start in range(0, tokens, rows)]


def _room(each: Placed, like: Tensor) -> Tensor:
    tokens, width = each.tokens.stop - each.tokens.start, each.reading.width
    return like.new_empty(tokens if width == 1 else (tokens, width))


def _reference(each: Placed, own: slice, logits: Tensor) -> Tensor | None:
    reference = each.reading.reference
    return None if reference is None or own.stop == own.start else reference.at(own, logits)


def _accumulator(weight: Tensor, chunks: int) -> Tensor | None:
    if not weight.requires_grad:
        return None
    # Sums of many chunks are not rounded to 16 bits after each.
    return torch.zeros_like(weight, dtype=softmax_dtype(weight.dtype) if chunks > 1 else weight.dtype)


def _split(flat: Tensor, tokens: int, placed: Sequence[Placed]) -> tuple[Tensor, list[Tensor]]:
    """A flat tensor of values as log-probs and the values of each reading."""
    sizes = [(each.tokens.stop - each.tokens.start) * each.reading.width for each in placed]
    logps, *values = flat.split([tokens, *sizes])
    wide = [v if p.reading.width == 1 else v.view(-1, p.reading.width) for v, p in zip(values, placed, strict=True)]
    return logps, wide


def split_values(
    flat: Tensor, tokens: int, placed: Sequence[Placed]
) -> tuple[Tensor, dict[tuple[Role | None, Hashable], Tensor]]:
    """What `read_positions` has put together: log-probs [T], and the values by role and key."""
    logps, values = _split(flat, tokens, placed)
    return logps, {(each.reading.role, each.reading.key): value for each, value in zip(placed, values, strict=True)}


def _add_grad_logits(
    grad_logits: Tensor, reading: TokenReadout, z: Tensor, targets: Tensor, reference: Tensor | None, upstream: Tensor
) -> None:
    """Add the gradient by the logits of a reading's values, times what comes from above."""
    known = None if reading.grad_logits is None else reading.grad_logits(z, targets, reference)
    if known is not None:
        grad_logits.addcmul_(known, upstream[:, None])
        return
    with torch.enable_grad():
        leaf = z.detach().requires_grad_()
        values = reading.function(leaf, targets, reference)
    grad_logits.add_(torch.autograd.grad(values, leaf, upstream)[0])


def log_prob_moments(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of log p(v) for v ~ p = softmax(z_t): logits [t, V] -> two of [t], nats."""
    logps = logits.log_softmax(-1)
    probabilities = logps.exp()
    logps = logps.nan_to_num(neginf=0.0)  # 0 log 0 = 0; a NaN stays one through the probabilities
    mean = (probabilities * logps).sum(-1)
    # About the mean, not E[x^2] - E[x]^2, whose difference is lost to rounding where a token is all but certain.
    deviation = (probabilities * (logps - mean[:, None]).square()).sum(-1).sqrt()
    return mean, deviation
