"""Distillation of another model's forget answers: of one whose answers are suppressed, into the weights."""

from dataclasses import dataclass

from torch import Tensor

from ..data.roles import Role
from .base import WHOLE_REFERENCE_DISTRIBUTIONS, DistributionLoss, Needs, roles
from .kl import kl_divergence, kl_grad_logits


@dataclass(frozen=True)
class Distil(DistributionLoss):
    """KL to a given reference on the forget answers, both softened by a temperature.

    L = T^2 mean_t KL(softmax(z_ref / T) || softmax(z / T)), over all forget answer tokens of the step; nats per token.
    The reference is a `ref_model` that answers as the model is to: the model itself with a suppression on it
    (`hf_unlearn.suppression`). Zero, with zero gradient, when the model equals it. T^2 keeps the size of the gradient.

    Args:
        temperature: T, above 0.

    Paper: Merchant et al. 2026, https://arxiv.org/abs/2605.31293.
    """

    temperature: float = 1.5

    name = "distil"
    unit = "token"
    on = Role.FORGET
    needs = Needs(reference_logits=roles(Role.FORGET))
    of_given_reference = True
    incompatible_with = WHOLE_REFERENCE_DISTRIBUTIONS
    formula = "T^2 mean_t KL(softmax(z_ref / T) || softmax(z / T))"
    paper = "Merchant et al. 2026, arXiv:2605.31293"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_positive("temperature")

    def at_positions(self, logits: Tensor, token_ids: Tensor, reference: Tensor | None) -> Tensor:
        assert reference is not None
        soft = self.temperature
        return soft**2 * kl_divergence(logits / soft, reference.to(logits.dtype) / soft)

    def grad_logits(self, logits: Tensor, token_ids: Tensor, reference: Tensor | None) -> Tensor:
        assert reference is not None
        soft = self.temperature
        return soft * kl_grad_logits(logits / soft, reference.to(logits.dtype) / soft)
