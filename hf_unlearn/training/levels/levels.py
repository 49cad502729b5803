"""`Levels`: the NLL that a model that never saw the forget rows would give each of them, and how well it is known."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from ...results.record_parts import LevelQuality


@dataclass(frozen=True)
class Levels:
    """Levels of N forget rows, and where a loss asks for them of their T answer tokens.

    Attributes:
        rows: tau_i, [N], nats per token, fp32.
        quality: how well they are known.
        token_values: levels of their answer tokens, [T], nats; None where no loss reads them.
        token_starts: where the tokens of each row start, [N + 1]; None likewise.
        token_order: whether they are in the order of the tokens, as it is predicted which of a row are the harder
            ones; ascending within a row otherwise.
        again: estimates them anew, from what a model as it is gives unseen rows that no anchor holds; every rank calls
            it, with the model wrapped where it is split over ranks. None where that was not asked for.
    """

    rows: Tensor
    quality: LevelQuality
    token_values: Tensor | None = None
    token_starts: Tensor | None = None
    token_order: bool = False
    again: "Callable[[nn.Module], Levels] | None" = field(default=None, compare=False, repr=False)

    def to(self, device: torch.device) -> "Levels":
        """The same on another device."""
        values, starts = (None if part is None else part.to(device) for part in (self.token_values, self.token_starts))
        return replace(self, rows=self.rows.to(device), token_values=values, token_starts=starts)
