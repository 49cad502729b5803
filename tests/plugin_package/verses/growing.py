"""A weighting: the retain side weighs more after every step."""

from dataclasses import dataclass

from hf_unlearn.steps.weighting import Weighting


@dataclass(frozen=True)
class Growing(Weighting):
    """w_r <- w_r (1 + rate) after every step.

    Args:
        rate: 0 or above.
    """

    rate: float = 0.1

    name = "growing"
    formula = "w_r <- w_r (1 + rate)"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_not_negative("rate")

    def updated(self, retain_weight: float, retain_loss: float) -> float:
        return retain_weight * (1 + self.rate)
