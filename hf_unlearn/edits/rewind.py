"""Back to a checkpoint from before the forget rows, and on from there with retain rows."""

from dataclasses import dataclass, replace

from transformers import PreTrainedModel

from ..model.fine_tuning import whole_text
from ..results.edit_report import Tried
from .base import Edit, EditData
from .checkpoint import load_checkpoint
from .fine_tuned import SCHEDULES, full_precision, train
from .moved import copied_weights, restore_weights


@dataclass(frozen=True)
class Rewind(Edit):
    """Takes the weights of the last checkpoint before the forget rows, and trains them on the retain rows alone.

    theta <- theta_0 trained on the retain rows. Exact, bit for bit, where all the other rows that came after the
    checkpoint are retain rows and are replayed in the order and with the settings of then (AdamW without weight decay,
    begun anew at the checkpoint); otherwise as near to retraining as the settings are.

    Args:
        epochs: passes over the retain rows; 0 for the checkpoint as it is.
        rate: learning rate, the highest of a schedule.
        batch: rows of a step.
        schedule: "constant", or "cosine" or "linear" with a warm-up over the first twentieth of the steps.
        shuffle: False for the retain rows in the order in which they are given.
        whole_text: train every token of a row, its prompt too.
    """

    epochs: float = 1.0
    rate: float = 1e-4
    batch: int = 16
    schedule: str = "cosine"
    shuffle: bool = True
    whole_text: bool = True

    name = "rewind"
    formula = "theta_0, then -log p of the retain rows"
    reads = frozenset({"forget", "retain"})
    needs_checkpoint = True
    cost = "epochs of training on the retain rows"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_not_negative("epochs")
        self.require_positive("rate", "batch")
        self.require("schedule", self.schedule in SCHEDULES, f"one of {', '.join(SCHEDULES)}")

    def run(self, model: PreTrainedModel, data: EditData) -> list[Tried]:
        start, known = load_checkpoint(model, data)
        restore_weights(model, copied_weights(start))
        del start
        rows = whole_text(data.retain) if self.whole_text else data.retain
        with full_precision(model) as wide:
            train(
                wide,
                rows,
                data,
                epochs=self.epochs,
                rate=self.rate,
                batch=self.batch,
                schedule=self.schedule,
                shuffle=self.shuffle,
            )
        return [known, replace(data.tried(model, {"epochs": self.epochs}, retain=False), chosen=True)]
