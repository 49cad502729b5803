"""KL divergence from the reference on the answers of rows that the model has never seen."""

from dataclasses import dataclass

from ..data.roles import Role
from .base import Needs, roles
from .kl import RetainKL


@dataclass(frozen=True)
class AnchorKL(RetainKL):
    """KL(pi_ref || pi_theta) at the answer positions of the holdout rows.

    L = mean_t sum_v pi_ref(v) (log pi_ref(v) - log pi_theta(v)), over all holdout answer tokens of the step; nats per
    token. Forgetting some rows moves its neighbours too: rows of the same kind that were never seen would drift with
    the forget rows, and their level is what those are to reach. Zero, with zero gradient, at the reference.

    Paper: the divergence is that of Maini et al. 2024 (TOFU), https://arxiv.org/abs/2401.06121, section 4.1; the rows
    are ours.
    """

    on = Role.HOLDOUT
    needs = Needs(roles=roles(Role.HOLDOUT), reference_logits=roles(Role.HOLDOUT))
