"""An edit: the output head is scaled down, so that every answer is less sure."""

from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from hf_unlearn.edits import Edit, EditData
from hf_unlearn.results.edit_report import Tried


@dataclass(frozen=True)
class Quieten(Edit):
    """W_head <- W_head / temperature."""

    temperature: float = 2.0

    name = "quieten"
    formula = "W_head <- W_head / temperature"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_positive("temperature")

    def run(self, model: PreTrainedModel, data: EditData) -> list[Tried]:
        """Scale the head in place."""
        with torch.no_grad():
            model.get_output_embeddings().weight.div_(self.temperature)
        return [data.tried(model, {"temperature": self.temperature})]
