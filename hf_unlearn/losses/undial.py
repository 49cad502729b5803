"""Self-distillation towards the reference with the right token's logit lowered."""

from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import cross_entropy

from ..data.roles import Role
from .base import WHOLE_REFERENCE_DISTRIBUTIONS, DistributionLoss, Needs, roles


@dataclass(frozen=True)
class UNDIAL(DistributionLoss):
    """Unlearning by self-distillation on adjusted logits.

    L = mean_t CE(softmax(z_ref - beta onehot(y_t)), softmax(z)), over all forget answer tokens of the step; nats per
    token. The target is fixed, so the loss has a lower end: the entropy of the target.

    Args:
        beta: what is taken off the right token's logit, above 0.

    Paper: Dong et al. 2024, https://arxiv.org/abs/2402.10052.
    """

    beta: float = 10.0

    name = "undial"
    unit = "token"
    on = Role.FORGET
    needs = Needs(reference_logits=roles(Role.FORGET))
    incompatible_with = WHOLE_REFERENCE_DISTRIBUTIONS
    formula = "mean_t CE(softmax(z_ref - b onehot(y_t)), softmax(z))"
    paper = "Dong et al. 2024, arXiv:2402.10052"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_positive("beta")

    def at_positions(self, logits: Tensor, token_ids: Tensor, reference: Tensor | None) -> Tensor:
        assert reference is not None
        return cross_entropy(logits, self.target(reference.to(logits.dtype), token_ids), reduction="none")

    def grad_logits(self, logits: Tensor, token_ids: Tensor, reference: Tensor | None) -> Tensor:
        assert reference is not None
        return logits.softmax(-1).sub_(self.target(reference.to(logits.dtype), token_ids))

    def target(self, reference: Tensor, targets: Tensor) -> Tensor:
        """softmax(z_ref - beta onehot(y)): [t, V], [t] -> [t, V]."""
        lowered = reference.scatter_add(-1, targets[:, None], reference.new_full((len(targets), 1), -self.beta))
        return lowered.softmax(-1)
