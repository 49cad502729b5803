"""Who's Harry Potter: what a model that was trained further on the forget rows makes likelier is taken off."""

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..edits import EditData
from ..model.output_head import output_head
from ..model.suppressed_forward import Text
from .base import Suppression, Suppressor
from .small_models import adapter_inside, next_logits, small_model, trained


@dataclass(frozen=True, eq=False)
class ReinforcedSuppressor(Suppressor):
    """z - a relu(z_reinforced - z).

    Args:
        reinforced: the model after more training on the forget rows.
        alpha: a.
    """

    reinforced: PreTrainedModel
    alpha: float = 5.0

    name = "harry_potter"
    changes_logits = True
    holds = "The reinforced model knows the forget rows even better than the model itself."

    @property
    def vocabulary(self) -> int:
        return output_head(self.reinforced).vocabulary

    def change(self, logits: Tensor, text: Text, positions: Tensor) -> Tensor:
        logps = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)
        stronger = next_logits(self.reinforced, text, positions) - logps
        return logps - self.alpha * stronger.relu()


@dataclass(frozen=True)
class HarryPotter(Suppression):
    """Takes off what more training on the forget rows makes likelier: z' = z - a relu(z_reinforced - z).

    As log-probs, so that a constant that is added to all logits does not count. The paper makes these logits the
    targets of a fine-tuning; here they are decoded from. Of rows that the model knows by heart more training makes
    nothing likelier: use it where the rows were seen once or twice, or take divergence_decoding.

    Args:
        alpha: a, above 0.
        steps: of the further training.
        batch: rows of a step.
        rate: learning rate.

    Paper: Eldan et al. 2023, https://arxiv.org/abs/2310.02238, equation 1.
    """

    alpha: float = 5.0
    steps: int = 60
    batch: int = 8
    rate: float = 3e-4

    name = "harry_potter"
    formula = "z - a relu(z_reinforced - z)"
    paper = "Eldan et al. 2023, arXiv:2310.02238"
    reads = frozenset({"forget"})
    fitted = ReinforcedSuppressor
    cost = "a fine-tuning of the whole model; at every token a second model of its size reads the whole text"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_positive("alpha", "rate")
        for argument in ("steps", "batch"):
            self.require(argument, getattr(self, argument) >= 1, "1 or above")

    def unfit(self, model: PreTrainedModel, data: EditData) -> str | None:
        return adapter_inside(model)

    def build(self, model: PreTrainedModel, data: EditData) -> ReinforcedSuppressor:
        layers = model.config.get_text_config().num_hidden_layers
        whole = small_model(model, layers, seed=data.seed, of_its_weights=True)
        budget = {"steps": self.steps, "batch": self.batch, "rate": self.rate}
        return ReinforcedSuppressor(trained(whole, data.forget, data, **budget), self.alpha)
