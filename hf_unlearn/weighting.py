"""How the weights of both sides are set over a run. The weights of terms within a side are the losses' own."""

from dataclasses import dataclass
from typing import ClassVar

from .steps.base import argument_error, require_number


@dataclass(frozen=True)
class Fixed:
    """w_f and w_r stay as `forget_weight` and `retain_weight` set them."""

    name: ClassVar[str] = "fixed"
    formula: ClassVar[str] = "w_f, w_r constant"
    paper: ClassVar[str] = ""

    def updated(self, retain_weight: float, retain_loss: float) -> float:
        """w_r of the next step."""
        return retain_weight


@dataclass(frozen=True)
class PrimalDual:
    """Primal-dual weighting: forget as far as the retain loss stays within a limit.

    w_r <- max(0, w_r + eta (L_retain - epsilon)), once after every optimizer step, from `retain_weight` as the first;
    L_retain is the step's retain side (its weighted terms, without w_r), the same number on every rank. w_r rises
    while the retain loss is above epsilon and falls while it is below.

    Args:
        eta: step size of the dual variable, above 0.
        epsilon: retain loss that is tolerated, in the units of the retain side (nats per token for nll and kl).

    Paper: Entesari et al. 2025, https://arxiv.org/abs/2506.05314.
    """

    eta: float = 1.0
    epsilon: float = 0.1

    name: ClassVar[str] = "primal_dual"
    formula: ClassVar[str] = "w_r <- max(0, w_r + eta (L_retain - epsilon)) after every step"
    paper: ClassVar[str] = "Entesari et al. 2025, arXiv:2506.05314"

    def __post_init__(self) -> None:
        for argument in ("eta", "epsilon"):
            require_number(self, argument)
        if not 0 < self.eta < float("inf"):
            raise argument_error(self, "eta", "above 0 and finite", self.eta)
        if not 0 <= self.epsilon < float("inf"):
            raise argument_error(self, "epsilon", "0 or above and finite", self.epsilon)

    def updated(self, retain_weight: float, retain_loss: float) -> float:
        """w_r of the next step."""
        return max(0.0, retain_weight + self.eta * (retain_loss - self.epsilon))


Weighting = Fixed | PrimalDual

WEIGHTINGS: dict[str, type[Weighting]] = {rule.name: rule for rule in (Fixed, PrimalDual)}
