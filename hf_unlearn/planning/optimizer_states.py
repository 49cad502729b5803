"""Memory of optimizers: states of each trained element, and temporary buffers of a step."""

from dataclasses import dataclass

from ..errors import require_choice
from .counts import Counts

# 8-bit states of bitsandbytes: a byte an element and an fp32 scale for every 256 of them.
_EIGHT_BIT = 1 + 4 / 256


@dataclass(frozen=True)
class OptimizerCost:
    """Memory of an optimizer, per trained element.

    Attributes:
        averages: states in the precision of the weights.
        fp32_averages: states that are always fp32.
        eight_bit: states in 8 bits.
        factored: Adafactor's rows and columns, fp32, in place of a state for each element.
        step: buffers in the precision of the weights that the step makes of all weights at once.
    """

    averages: int = 0
    fp32_averages: int = 0
    eight_bit: int = 0
    factored: bool = False
    step: int = 0

    def states(self, counts: Counts, weight_bytes: int, share: float = 1.0) -> int:
        """Bytes of all states.

        Args:
            counts: of the model.
            weight_bytes: of a trained weight, as the optimizer sees it.
            share: of the trained elements that this process has.
        """
        element_bytes = self.averages * weight_bytes + 4 * self.fp32_averages + self.eight_bit * _EIGHT_BIT
        return round(share * (element_bytes * counts.trained + 4 * self.factored * counts.factored))

    def step_bytes(self, counts: Counts, weight_bytes: int, share: float = 1.0) -> int:
        """Bytes that the step takes and gives back."""
        largest = 8 * counts.trained_largest if self.factored else 0
        return round(share * self.step * weight_bytes * counts.trained) + largest


# By the names of TrainingArguments.optim, and of hf_unlearn.optimizers.
OPTIMIZER_COSTS: dict[str, OptimizerCost] = {
    "adamw_torch_fused": OptimizerCost(averages=2),
    "adamw_torch": OptimizerCost(averages=2, step=1),  # foreach: the denominators of all weights side by side
    "adamw_bnb_8bit": OptimizerCost(eight_bit=2),
    "adamw_8bit": OptimizerCost(eight_bit=2),
    "paged_adamw_8bit": OptimizerCost(eight_bit=2),
    "paged_adamw_32bit": OptimizerCost(fp32_averages=2),
    "lion_32bit": OptimizerCost(fp32_averages=1),
    "paged_lion_32bit": OptimizerCost(fp32_averages=1),
    "lion_8bit": OptimizerCost(eight_bit=1),
    "paged_lion_8bit": OptimizerCost(eight_bit=1),
    "adafactor": OptimizerCost(factored=True),
    "rmsprop": OptimizerCost(averages=1, step=1),
    "adagrad": OptimizerCost(averages=1, step=1),
    "sgd": OptimizerCost(),
    "sophia": OptimizerCost(fp32_averages=2, step=1),
}


def optimizer_cost(name: str) -> OptimizerCost:
    """The cost of an optimizer by the name that `optim` has.

    Raises:
        ValueError: an optimizer whose memory is not known here.
    """
    require_choice("optim", name, OPTIMIZER_COSTS)
    return OPTIMIZER_COSTS[name]
