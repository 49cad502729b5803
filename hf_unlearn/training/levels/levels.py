"""`Levels`: the NLL that a model that never saw the forget rows would give each of them, and how well it is known."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ...results.record_parts import LevelQuality


@dataclass(frozen=True)
class Levels:
    """Levels of N forget rows, and where a loss asks for them of their T answer tokens.

    Attributes:
        rows: tau_i, [N], nats per token, fp32.
        quality: how well they are known.
        token_values: levels of the answer tokens, row after row, [T], nats; None where no loss reads them.
        token_starts: where the tokens of each row start, [N + 1]; None likewise.
    """

    rows: Tensor
    quality: LevelQuality
    token_values: Tensor | None = None
    token_starts: Tensor | None = None

    def to(self, device: torch.device) -> "Levels":
        """The same on another device."""
        tokens = (None if part is None else part.to(device) for part in (self.token_values, self.token_starts))
        return Levels(self.rows.to(device), self.quality, *tokens)
