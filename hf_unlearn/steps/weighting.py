"""How the weights of both sides are set over a run. The weights of terms within a side are the losses' own."""

import abc
from dataclasses import dataclass
from typing import ClassVar

from ..component import Component
from ..plugins import PluginTable, components


@dataclass(frozen=True)
class Weighting(Component, abc.ABC):
    """A rule that sets w_r, the weight of the retain side, from step to step; w_f stays as `forget_weight` sets it.

    Class attributes, beside those of every component: `moves`, whether w_r changes over the run. One that moves needs
    a retain side, is logged, and is kept in checkpoints.
    """

    moves: ClassVar[bool] = True

    @abc.abstractmethod
    def updated(self, retain_weight: float, retain_loss: float) -> float:
        """w_r of the next step.

        Args:
            retain_weight: w_r of this step.
            retain_loss: of this step, its weighted terms without w_r; the same number on every rank.
        """


@dataclass(frozen=True)
class Fixed(Weighting):
    """w_f and w_r stay as `forget_weight` and `retain_weight` set them."""

    name = "fixed"
    moves = False
    formula = "w_f, w_r constant"

    def updated(self, retain_weight: float, retain_loss: float) -> float:
        return retain_weight


@dataclass(frozen=True)
class PrimalDual(Weighting):
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

    name = "primal_dual"
    formula = "w_r <- max(0, w_r + eta (L_retain - epsilon)) after every step"
    paper = "Entesari et al. 2025, arXiv:2506.05314"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_positive("eta")
        self.require_not_negative("epsilon")

    def updated(self, retain_weight: float, retain_loss: float) -> float:
        return max(0.0, retain_weight + self.eta * (retain_loss - self.epsilon))


WEIGHTINGS = PluginTable[type[Weighting]](
    "weighting",
    {rule.name: rule for rule in (Fixed, PrimalDual)},
    lambda plugin: components(plugin.weightings, Weighting),
)
