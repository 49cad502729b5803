"""KL divergence from the reference on the retain answers."""

from dataclasses import dataclass

from torch import Tensor

from ..data.roles import Role
from .base import WHOLE_REFERENCE_DISTRIBUTIONS, DistributionLoss, Needs, roles


@dataclass(frozen=True)
class RetainKL(DistributionLoss):
    """KL(pi_ref || pi_theta) at the answer positions of the retain rows.

    L = mean_t sum_v pi_ref(v) (log pi_ref(v) - log pi_theta(v)), over all retain answer tokens of the step; nats per
    token. A true KL: zero, with zero gradient, when the model equals the reference.

    Paper: Maini et al. 2024 (TOFU), https://arxiv.org/abs/2401.06121, section 4.1.
    """

    name = "kl"
    unit = "token"
    on = Role.RETAIN
    needs = Needs(roles=roles(Role.RETAIN), reference_logits=roles(Role.RETAIN))
    incompatible_with = WHOLE_REFERENCE_DISTRIBUTIONS
    formula = "mean_t KL(pi_ref || pi_theta)"
    paper = "Maini et al. 2024, arXiv:2401.06121"

    def at_positions(self, logits: Tensor, token_ids: Tensor, reference: Tensor | None) -> Tensor:
        assert reference is not None
        return kl_divergence(logits, reference)

    def grad_logits(self, logits: Tensor, token_ids: Tensor, reference: Tensor | None) -> Tensor:
        assert reference is not None
        return kl_grad_logits(logits, reference)


def kl_divergence(logits: Tensor, reference: Tensor) -> Tensor:
    """KL(softmax(reference) || softmax(logits)): two [t, V] -> [t], nats."""
    log_policy = logits.log_softmax(-1)
    log_reference = reference.to(logits.dtype).log_softmax(-1)
    return (log_reference.exp() * (log_reference - log_policy)).sum(-1)


def kl_grad_logits(logits: Tensor, reference: Tensor) -> Tensor:
    """Its derivative by the logits, softmax(logits) - softmax(reference): two [t, V] -> [t, V].

    Exactly zero at the reference, where autograd's would be the rounding of a sum of probabilities.
    """
    return logits.softmax(-1).sub_(reference.to(logits.dtype).softmax(-1))
