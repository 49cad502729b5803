"""Logit difference (ULD): an assistant that knows the forget rows alone, whose logits are taken off the model's."""

from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..edits import EditData
from ..model.head_query import TokenReadout
from ..model.output_head import output_head
from ..model.scoring import score_answers
from ..model.suppressed_forward import Text
from .base import Suppression, Suppressor
from .calibration import at_level
from .small_models import adapter_inside, balanced, collated, frozen, next_logits, small_model


@dataclass(frozen=True, eq=False)
class AssistantSuppressor(Suppressor):
    """z - a log p_assistant.

    Args:
        assistant: knows the forget rows, and is uniform on the retain rows.
        alpha: a.
    """

    assistant: PreTrainedModel
    alpha: float = 1.0

    name = "uld"
    changes_logits = True
    holds = "The assistant knows the forget rows and gives them away word for word."

    @property
    def vocabulary(self) -> int:
        return output_head(self.assistant).vocabulary

    def change(self, logits: Tensor, text: Text, positions: Tensor) -> Tensor:
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return logits - self.alpha * next_logits(self.assistant, text, positions)


@dataclass(frozen=True)
class ULD(Suppression):
    """Takes the logits of an assistant off the model's: z' = z - a log p_assistant.

    The assistant learns the opposite of unlearning, which is easy: L = NLL(forget) + w KL(uniform || p_assistant), the
    KL on retain answers. Where it is uniform nothing changes. It begins as the model's first blocks with its
    embeddings, norm and head, and all of its weights are trained (the paper trains LoRA on them).

    Args:
        alpha: a, above 0.
        to_level: choose a so that the mean NLL of the forget rows is the level of unseen rows, beginning with `alpha`.
        layers: blocks of the assistant, 1 or above.
        retain_weight: w, 0 or above.
        steps: of the fit.
        batch: forget rows, and as many retain rows, of a step.
        rate: learning rate.

    Paper: Ji et al. 2024, https://arxiv.org/abs/2406.08607.
    """

    alpha: float = 1.0
    to_level: bool = False
    layers: int = 1
    retain_weight: float = 1.0
    steps: int = 300
    batch: int = 8
    rate: float = 1e-3

    name = "uld"
    formula = "z - a z_assistant, assistant: min NLL(forget) + w KL(U || retain)"
    paper = "Ji et al. 2024, arXiv:2406.08607"
    fitted = AssistantSuppressor
    cost = "a small model to train; at every token it reads the whole text"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_positive("alpha", "rate")
        self.require_not_negative("retain_weight")
        for argument in ("layers", "steps", "batch"):
            self.require(argument, getattr(self, argument) >= 1, "1 or above")

    def unfit(self, model: PreTrainedModel, data: EditData) -> str | None:
        return adapter_inside(model)

    def build(self, model: PreTrainedModel, data: EditData) -> AssistantSuppressor:
        small = small_model(model, self.layers, seed=data.seed, of_its_weights=True)
        optimizer = torch.optim.AdamW(small.parameters(), lr=self.rate, weight_decay=0.0)
        readout, head = TokenReadout("uniform", None, kl_from_uniform), output_head(small)
        for forget, retain in islice(balanced((data.forget, data.retain), self.batch, data.seed), self.steps):
            batch = collated(data.questioner.collator, [*forget, *retain], small.device)
            with torch.enable_grad():
                scores, _ = score_answers(small, head, batch, readouts=[readout])
                tokens = int(scores.lengths[: len(forget)].sum())
                kept = scores.readouts["uniform"][tokens:].mean()
                loss = -scores.logps[:tokens].mean() + self.retain_weight * kept
                loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        suppressor = AssistantSuppressor(frozen(small), self.alpha)
        return at_level(suppressor, model, data) if self.to_level else suppressor


def kl_from_uniform(logits: Tensor, token_ids: Tensor, reference: Tensor | None) -> Tensor:
    """KL(U || softmax(z)) = -(1 / V) sum_v log p(v) - log V: [t, V] -> [t], nats."""
    size = torch.tensor(float(logits.shape[-1]))
    return -logits.log_softmax(-1).mean(-1) - size.log().to(logits)
