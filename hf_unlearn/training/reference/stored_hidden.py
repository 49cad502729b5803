"""Distributions of the reference from hidden states that were computed before training, and its own output head."""

import copy
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper
from torch import nn

from ...data.answer_positions import AnswerIndex
from ...data.roles import Role
from ...model.head_backward import LMHead
from ...model.logit_transform import LogitTransform
from ...model.reference_logits import HeadLogits
from ...model.score_rows import RowHiddenStates


@dataclass
class StoredHidden:
    """Hidden states by role, and the head that makes logits of them.

    Args:
        head: of the reference; its weights do not change.
        alone: whether it is no part of a model that is put on its device.
    """

    head: nn.Module
    alone: bool
    _transform: LogitTransform = field(default_factory=LogitTransform)
    _rows: dict[Role, tuple[RowHiddenStates, list[int]]] = field(default_factory=dict)

    @classmethod
    def of(cls, model: Any) -> "StoredHidden":
        """With the head of a model as it is now: itself where nothing trains it, else a copy."""
        head = model.get_output_embeddings()
        trained = any(weight.requires_grad for weight in head.parameters())
        # Adapters of the head are switched on and off with the model's.
        alone = trained or isinstance(head, BaseTunerLayer | AuxiliaryTrainingWrapper)
        return cls(copy.deepcopy(head).requires_grad_(False).eval() if alone else head, alone)

    def place(self, device: torch.device) -> None:
        """Put a head that stands alone on a device."""
        if self.alone:
            self.head.to(device)

    def store(self, role: Role, rows: RowHiddenStates, transform: LogitTransform) -> None:
        """Keep those of a role's whole set, mapped from the disk or on the host.

        Args:
            role: of the rows.
            rows: their hidden states.
            transform: from the head's logits to those of the model.
        """
        self._transform = transform
        self._rows[role] = rows, [0, *accumulate(rows.lengths.tolist())]

    def logits(self, role: Role, index: AnswerIndex) -> HeadLogits:
        """Those of a batch's rows of a role; the caller has the autocast of the reference around it."""
        stored, starts = self._rows[role]
        places = [slice(starts[i], starts[i + 1]) for i in index.row_numbers[index.row_slice(role)]]
        device = next(self.head.parameters()).device
        hidden = torch.cat([stored.states[place] for place in places]).to(device, non_blocking=True)
        return HeadLogits(LMHead(self.head, self.head.forward, self._transform), hidden)
