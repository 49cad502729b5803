"""Softmaxes over the vocabulary at answer positions, in fp32 and chunk by chunk. No loss is known here."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

# Elements of one fp32 chunk of logits: 64 MB, whatever the vocabulary.
_CHUNK_ELEMENTS = 1 << 24

# (logits [t, V] in fp32 or fp64, what is aligned with them [t, ...]) -> a value for each position [t]
PositionFunction = Callable[..., Tensor]


def chunks(tokens: int, vocabulary: int) -> Iterator[slice]:
    """Slices over T tokens such that one slice of [T, V] in fp32 stays at 64 MB."""
    size = max(1, _CHUNK_ELEMENTS // vocabulary)
    for start in range(0, tokens, size):
        yield slice(start, min(start + size, tokens))


def softmax_dtype(logits: Tensor) -> torch.dtype:
    """fp32, or fp64 where the model itself is in fp64."""
    return torch.promote_types(logits.dtype, torch.float32)


def token_logps(logits: Tensor, targets: Tensor) -> Tensor:
    """log softmax(z_t)[y_t] at T positions: logits [T, V], targets [T] -> [T], fp32, in chunks both ways."""
    return _TokenLogps.apply(logits, targets)


class _TokenLogps(torch.autograd.Function):
    """Keeps the logits in their own precision and the normalisers; neither pass holds an fp32 copy of all of them."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> Tensor:
        dtype = softmax_dtype(logits)
        normalisers = torch.empty(len(targets), dtype=dtype, device=logits.device)
        logps = torch.empty_like(normalisers)
        for part in chunks(*logits.shape):
            z = logits[part].to(dtype)
            normalisers[part] = z.logsumexp(-1)
            logps[part] = z.gather(-1, targets[part, None]).squeeze(-1) - normalisers[part]
        ctx.save_for_backward(logits, targets, normalisers)
        return logps

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        logits, targets, normalisers = ctx.saved_tensors
        grad_logits = torch.empty_like(logits)
        for part in chunks(*logits.shape):
            # d lp / d z = onehot(y) - softmax(z)
            probabilities = (logits[part].to(normalisers.dtype) - normalisers[part, None]).exp_()
            weighted = probabilities.mul_(-grad[part, None])
            weighted.scatter_add_(-1, targets[part, None], grad[part, None])
            grad_logits[part] = weighted
        return grad_logits, None


@torch.no_grad()
def log_prob_moments(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of log p(v) for v ~ p = softmax(z_t): logits [T, V] -> two of [T], nats, fp32."""
    mean = torch.empty(len(logits), dtype=softmax_dtype(logits), device=logits.device)
    deviation = torch.empty_like(mean)
    for part in chunks(*logits.shape):
        logps = logits[part].to(mean.dtype).log_softmax(-1)
        probabilities = logps.exp()
        logps = logps.nan_to_num(neginf=0.0)  # 0 log 0 = 0; a NaN stays one through the probabilities
        mean[part] = (probabilities * logps).sum(-1)
        # About the mean, not E[x^2] - E[x]^2, whose difference is lost to rounding where a token is all but certain.
        deviation[part] = (probabilities * (logps - mean[part, None]).square()).sum(-1).sqrt()
    return mean, deviation


def per_position(
    function: PositionFunction, logits: Tensor, *aligned: Tensor, slope: PositionFunction | None = None
) -> Tensor:
    """A value of each position's logits, in chunks both ways: logits [T, V], aligned [T, ...] -> [T], nats, fp32.

    The backward pass computes each chunk again, so that neither pass holds an fp32 copy of all logits and nothing is
    kept between them but what is passed in.

    Args:
        function: differentiable in its first argument; gets a chunk of the logits in fp32 (fp64 for a model in fp64)
            and of everything in `aligned`.
        logits: [T, V]; the gradient goes to them alone.
        aligned: constants with a row for each position: targets [T], reference logits [T, V].
        slope: of the same arguments, the derivative by the logits [t, V], where it is known; else autograd's.
    """
    return _PerPosition.apply(logits, function, slope, *(each.detach() for each in aligned))


class _PerPosition(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, function: PositionFunction, slope: PositionFunction | None, *aligned: Tensor
    ) -> Tensor:
        values = torch.empty(len(logits), dtype=softmax_dtype(logits), device=logits.device)
        for part in chunks(*logits.shape):
            values[part] = function(logits[part].to(values.dtype), *(each[part] for each in aligned))
        ctx.save_for_backward(logits, *aligned)
        ctx.function, ctx.slope = function, slope
        return values

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        logits, *aligned = ctx.saved_tensors
        grad_logits = torch.empty_like(logits)
        for part in chunks(*logits.shape):
            z, constants = logits[part].detach().to(softmax_dtype(logits)), [each[part] for each in aligned]
            if ctx.slope is not None:
                grad_logits[part] = ctx.slope(z, *constants) * grad[part, None]
                continue
            with torch.enable_grad():
                values = ctx.function(z.requires_grad_(), *constants)
            (grad_logits[part],) = torch.autograd.grad(values, z, grad[part])
        return grad_logits, None, None, *(None for _ in aligned)
