"""KL divergence from the reference on the retain answers."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..data.roles import Role
from ..scoring import Scores, chunks, softmax_dtype
from .base import Loss, Needs, roles


@dataclass(frozen=True)
class RetainKL(Loss):
    """KL(pi_ref || pi_theta) at the answer positions of the retain rows.

    L = mean_t sum_v pi_ref(v) (log pi_ref(v) - log pi_theta(v)), over all retain answer tokens of the step; nats per
    token. A true KL: zero, with zero gradient, when the model equals the reference.

    Paper: Maini et al. 2024 (TOFU), https://arxiv.org/abs/2401.06121, section 4.1.
    """

    name = "kl"
    unit = "token"
    on = Role.RETAIN
    needs = Needs(
        roles=roles(Role.RETAIN),
        logits=roles(Role.RETAIN),
        reference_logits=roles(Role.RETAIN),
    )
    formula = "mean_t KL(pi_ref || pi_theta)"
    paper = "Maini et al. 2024, arXiv:2401.06121"

    def __call__(self, scores: Scores) -> Tensor:
        retain = scores.retain
        assert retain is not None and retain.logits is not None
        assert retain.reference is not None and retain.reference.logits is not None
        return kl_divergence(retain.reference.logits, retain.logits)


def kl_divergence(reference: Tensor, logits: Tensor) -> Tensor:
    """KL(softmax(reference) || softmax(logits)) at T positions: two [T, V] -> [T], nats, fp32, in chunks both ways.

    Differentiable in `logits` alone.
    """
    return _ForwardKL.apply(reference, logits)


class _ForwardKL(torch.autograd.Function):
    """The gradient is softmax(logits) - softmax(reference): exactly zero at the reference, unlike autograd's."""

    @staticmethod
    def forward(ctx: Any, reference: Tensor, logits: Tensor) -> Tensor:
        dtype = softmax_dtype(logits)
        divergence = torch.empty(len(logits), dtype=dtype, device=logits.device)
        for part in chunks(*logits.shape):
            log_reference = reference[part].to(dtype).log_softmax(-1)
            log_policy = logits[part].to(dtype).log_softmax(-1)
            divergence[part] = (log_reference.exp() * (log_reference - log_policy)).sum(-1)
        ctx.save_for_backward(reference, logits)
        return divergence

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor]:
        reference, logits = ctx.saved_tensors
        dtype = softmax_dtype(logits)
        grad_logits = torch.empty_like(logits)
        for part in chunks(*logits.shape):
            difference = logits[part].to(dtype).softmax(-1) - reference[part].to(dtype).softmax(-1)
            grad_logits[part] = difference.mul_(grad[part, None])
        return None, grad_logits
