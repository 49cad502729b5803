"""KL divergence from the reference on the retain answers."""

from dataclasses import dataclass

from torch import Tensor

from ..data.roles import Role
from ..distributions import per_position
from ..scoring import Scores
from ..setups import Setup
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
    refused = {Setup.CACHED_REFERENCE: "it needs the reference's whole distributions, and log-probs are cached"}
    formula = "mean_t KL(pi_ref || pi_theta)"
    paper = "Maini et al. 2024, arXiv:2401.06121"

    def __call__(self, scores: Scores) -> Tensor:
        retain = scores.retain
        assert retain is not None and retain.logits is not None
        assert retain.reference is not None and retain.reference.logits is not None
        return per_position(kl_divergence, retain.logits, retain.reference.logits, slope=kl_slope)


def kl_divergence(logits: Tensor, reference: Tensor) -> Tensor:
    """KL(softmax(reference) || softmax(logits)): two [t, V] -> [t], nats."""
    log_policy = logits.log_softmax(-1)
    log_reference = reference.to(logits.dtype).log_softmax(-1)
    return (log_reference.exp() * (log_reference - log_policy)).sum(-1)


def kl_slope(logits: Tensor, reference: Tensor) -> Tensor:
    """Its derivative by the logits, softmax(logits) - softmax(reference): two [t, V] -> [t, V].

    Exactly zero at the reference, where autograd's would be the rounding of a sum of probabilities.
    """
    return logits.softmax(-1) - reference.to(logits.dtype).softmax(-1)
