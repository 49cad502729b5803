"""The reference's logits where they are not stored whole: from hidden states, or from its k likeliest tokens."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .head_query import ReferenceLogits
from .logit_provider import DenseLogits, LogitProvider


@dataclass(frozen=True)
class HeadLogits:
    """The reference's logits, computed from its hidden states [T, H] whenever they are asked for."""

    provider: LogitProvider
    hidden: Tensor

    def at(self, part: slice, logits: Tensor) -> Tensor:
        """Those of a stretch of tokens."""
        return self.provider.logits(self.hidden[part]).to(logits.dtype)


@dataclass(frozen=True)
class TopKLogits:
    """The reference's k likeliest tokens at each position; the rest of its mass lies as the model's own does there.

    With K the k tokens, p the reference and q the model, the tail is p^(v) = p(tail) q(v) / q(tail), q held fixed.
    KL(p^ || q) is then the KL of the k + 1 events "token v of K" and "another token": a lower bound of KL(p || q), and
    what it lacks is p(tail) KL(p(.|tail) || q(.|tail)); see `tail_bound`.

    Attributes:
        ids: the k tokens, [T, k].
        logps: their log-probs, [T, k], nats.
    """

    ids: Tensor
    logps: Tensor

    def at(self, part: slice, logits: Tensor) -> Tensor:
        """Log-probs of a stretch of tokens, [t, V]."""
        ids, logps = self.ids[part], self.logps[part].to(logits.dtype)
        log_q = logits.detach().log_softmax(-1)
        # log of the two tails' masses; p(tail) = 0 where rounding leaves the k tokens everything.
        log_tail = log_remainder(logps)
        log_own_tail = log_q.scatter(-1, ids, -math.inf).logsumexp(-1)
        return (log_q + (log_tail - log_own_tail)[:, None]).scatter(-1, ids, logps)


def log_remainder(logps: Tensor) -> Tensor:
    """log(1 - sum_k exp(lp_k)): [T, k] -> [T], nats; far below zero where nothing remains."""
    remainder = 1 - logps.double().exp().sum(-1)
    # Not minus infinity: the terms of a tail without mass must come out as 0 times a number.
    return remainder.clamp_min(torch.finfo(torch.float32).tiny).log().to(logps.dtype)


def tail_bound(logits: Tensor, ids: Tensor, logps: Tensor) -> Tensor:
    """How much KL(reference || model) can be above what `TopKLogits` gives: [t, V], two of [t, k] -> [t], nats.

    p(tail) KL(p(.|tail) || q(.|tail)) <= p(tail) max_{v not in K} log [p_min q(tail) / (p(tail) q(v))], where p_min,
    the least of the k probabilities, is above every p(v) of the tail.
    """
    log_q = logits.log_softmax(-1)
    inside = log_q.scatter(-1, ids, math.inf)
    log_tail = log_remainder(logps)
    log_own_tail = log_q.scatter(-1, ids, -math.inf).logsumexp(-1)
    worst = torch.minimum(logps.amin(-1) - log_tail, torch.zeros_like(log_tail)) + log_own_tail - inside.amin(-1)
    return log_tail.exp() * worst


def slice_logits(logits: ReferenceLogits, tokens: slice) -> ReferenceLogits:
    """The logits of a stretch of the tokens."""
    if isinstance(logits, DenseLogits):
        assert logits.tensor is not None
        return DenseLogits(logits.tensor[tokens])
    assert isinstance(logits, HeadLogits), "the likeliest tokens are looked up role by role"
    return HeadLogits(logits.provider, logits.hidden[tokens])
