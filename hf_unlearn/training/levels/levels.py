"""`Levels`: the NLL that a model that never saw the forget rows would give each of them, and how well it is known."""

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True)
class LevelQuality:
    """How levels were estimated, and how well their profile tells the NLL of unseen rows.

    Attributes:
        source: "ngram", "holdout", "model" or "given".
        calibration_rows: unseen rows that the levels were fitted on; 0 for levels that were given.
        forget_rows: rows that have a level.
        pearson: correlation of the NLL of unseen rows with what the profile predicts of them, cross-validated; None
            where there is no profile, or too few rows to tell.
        spearman: the same of their ranks.
        error: mean absolute error of that prediction, nats per token.
        intercept: a of tau = a + b p, nats per token.
        slope: b of it; 0 where there is no profile.
        mean: of the levels of the forget rows, nats per token.
        warnings: what is poor about them and what follows, a sentence each.
    """

    source: str
    calibration_rows: int
    forget_rows: int
    mean: float
    pearson: float | None = None
    spearman: float | None = None
    error: float | None = None
    intercept: float | None = None
    slope: float | None = None
    warnings: tuple[str, ...] = field(default=())


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
