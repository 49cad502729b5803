"""Estimates levels: a profile of the forget rows, put on the scale of the model by rows that it never saw."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers.utils import logging

from ...data.digests import row_digests
from ...model.score_rows import RowLogps
from .levels import LevelQuality, Levels
from .profile import Profile
from .regression import BINS, Line, cross_validated, drawn_alike
from .setting import GIVEN, HOLDOUT

logger = logging.get_logger(__name__)

# Below so many calibration rows (half of the holdout set) the mean level itself is uncertain.
FEW_ROWS = 25
# Below this correlation a profile says next to nothing of a row.
POOR_CORRELATION = 0.3


def estimate_levels(
    source: str,
    forget: Profile,
    calibration: Profile,
    unseen: RowLogps,
    rows: Any,
    *,
    tokens: bool,
    warn: bool = True,
) -> Levels:
    """tau_i = a + b p_i, with a and b by least squares on rows that the model never saw.

    Args:
        source: "ngram", "holdout" or "model", where the profiles come from.
        forget: p_i of the forget rows.
        calibration: the same of the calibration rows.
        unseen: what the model before unlearning gives these.
        rows: the forget rows, tokenised: their content seeds the draw of token levels.
        tokens: whether a loss reads levels of answer tokens.
        warn: whether what is poor about them is told now; the record has it in any case.
    """
    nll = unseen.nll_per_token().double().numpy()
    line = Line.fit(calibration.rows, nll)
    fit = cross_validated(calibration.rows, nll)
    levels = torch.from_numpy(line(forget.rows)).float()
    quality = LevelQuality(
        source=source,
        calibration_rows=len(nll),
        forget_rows=len(levels),
        mean=float(levels.mean()),
        pearson=fit.pearson if fit else None,
        spearman=fit.spearman if fit else None,
        error=fit.error if fit else None,
        intercept=line.intercept,
        slope=line.slope,
        warnings=tuple(_warnings(source, nll, fit.spearman if fit else None)),
    )
    for warning in quality.warnings if warn else ():
        logger.warning_once(f"levels={source!r}: {warning}")
    if not tokens:
        return Levels(levels, quality)
    return Levels(levels, quality, *_token_levels(forget, calibration, unseen, rows, flat=source == HOLDOUT))


def given_levels(levels: Mapping[Any, float]) -> Levels:
    """Levels that the user has by other means, row 0 first."""
    values = torch.tensor([levels[row] for row in range(len(levels))])
    return Levels(values, LevelQuality(GIVEN, 0, len(values), float(values.mean())))


def _token_levels(
    forget: Profile, calibration: Profile, unseen: RowLogps, rows: Any, *, flat: bool
) -> tuple[Tensor, Tensor]:
    """A level for every answer token of the forget rows, and where each row's start."""
    order = np.argsort(calibration.tokens, kind="stable")
    profile, nll = calibration.tokens[order], -unseen.logps.numpy()[order]
    ends, drawn = forget.lengths.cumsum(), []
    for tokens, digest in zip(np.split(forget.tokens, ends[:-1]), row_digests(rows), strict=True):
        # Of the row's own content: the same whatever its place, the other rows, or the process that draws.
        generator = np.random.default_rng(int(digest[:16], 16))
        drawn.append(drawn_alike(profile, nll, tokens, generator, bins=1 if flat else BINS))
    return torch.from_numpy(np.concatenate(drawn)).float(), torch.from_numpy(np.concatenate([[0], ends]))


def _warnings(source: str, nll: np.ndarray, spearman: float | None) -> Iterator[str]:
    if len(nll) < FEW_ROWS:
        spread = nll.std(ddof=1) / np.sqrt(len(nll)) if len(nll) > 1 else np.nan
        yield (
            f"calibrated on {len(nll)} unseen rows, which leaves the mean level uncertain by {2 * spread:.2g} nats "
            f"per token (two standard errors) and the rest nearly unknown; give {2 * FEW_ROWS} holdout rows or more."
        )
    if source != HOLDOUT and (spearman is None or spearman < POOR_CORRELATION):
        known = "cannot be told from so few rows" if spearman is None else f"is {spearman:.2f}"
        yield (
            f"the rank correlation of what the profile predicts with the NLL of unseen rows {known}: the levels are "
            "nearly the same for all forget rows. Their mean still holds; which row is the harder one is not known."
        )
