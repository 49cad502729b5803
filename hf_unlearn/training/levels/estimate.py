"""Estimates levels: a profile of the forget rows, put on the scale of the model by rows that it never saw."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from transformers.utils import logging

from ...data.digests import row_digests
from ...model.score_rows import RowLogps
from .fits import TOKEN_FITS, choose_fit
from .levels import LevelQuality, Levels
from .profile import Profile
from .regression import dealt_out
from .setting import GIVEN, HOLDOUT
from .shape import Shape, TokenMixture, in_order_of

logger = logging.get_logger(__name__)

# Below so many calibration rows (half of the holdout set) the mean level itself is uncertain.
FEW_ROWS = 25
# Below so many it is chance which of several fits tells rows left out better.
FEW_TO_CHOOSE = 50
# Below this correlation a profile says next to nothing of a row.
POOR_CORRELATION = 0.3
_TINY = 1e-9  # a level of 0, whose tokens are at 0 too


def estimate_levels(
    source: str,
    forget: Profile,
    calibration: Profile,
    unseen: RowLogps,
    rows: Any,
    *,
    tokens: bool,
) -> Levels:
    """tau_i = a + b p_i + e_i, at least 0, with a and b by least squares on rows that the model never saw.

    p_i is the profile of a row as it is, or the mean of what a curve or trees make of its tokens (`choose_fit`).
    e_i spreads the levels as the NLL of unseen rows lies around the line: the residuals of the calibration rows, as
    many quantiles of them as there are forget rows, dealt out in the order of a hash of each row. On the line alone
    the forget rows would lie nearer together than rows that no model saw, and could be told by that.

    Args:
        source: "ngram", "holdout" or "model", where the profiles come from.
        forget: p_i of the forget rows.
        calibration: the same of the calibration rows.
        unseen: what the model before unlearning gives these.
        rows: the forget rows, tokenised: their content deals out the residuals.
        tokens: whether a loss reads levels of answer tokens.
    """
    nll = unseen.nll_per_token().double().numpy()
    chosen = choose_fit(calibration, unseen, fewest=FEW_TO_CHOOSE)
    told, line = chosen.agreement, chosen.fit.line
    spread = dealt_out(chosen.residuals, list(row_digests(rows)))
    levels = torch.from_numpy(np.maximum(chosen.fit(forget) + spread, 0.0)).float()
    quality = LevelQuality(
        source=source,
        calibration_rows=len(nll),
        forget_rows=len(levels),
        mean=float(levels.mean()),
        fit=chosen.fit.way,
        pearson=told.pearson if told else None,
        spearman=told.spearman if told else None,
        error=told.error if told else None,
        intercept=line.intercept,
        slope=line.slope,
        warnings=tuple(_warnings(source, nll, told.spearman if told else None)),
    )
    for warning in quality.warnings:
        logger.warning_once(f"levels={source!r}: {warning}")
    estimated = Levels(levels, quality)
    if not tokens:
        return estimated
    if chosen.tokens is None:
        return _with_tokens(estimated, forget.lengths, _in_shape(forget.lengths, unseen))
    mixture = TokenMixture(chosen.tokens, -unseen.logps.double().numpy())
    placed = (in_order_of(predicted, mixture(predicted)) for predicted in chosen.fit.predicted_tokens(forget))
    return _with_tokens(replace(estimated, token_order=True), forget.lengths, placed)


def moved_levels(first: Levels, lengths: np.ndarray, before: RowLogps, now: RowLogps) -> Levels:
    """Levels moved by what some unseen rows have drifted since: tau_i + mean_j (nll_j now - nll_j before), at least 0.

    The difference of the same rows is known far better than their mean, which would be that of a few rows.

    Args:
        first: the estimate before unlearning, of all calibration rows.
        lengths: answer tokens of the forget rows, [N].
        before: what the model before unlearning gave rows that no anchor holds.
        now: what the model as it is gives the same rows.
    """
    drift = float((now.nll_per_token() - before.nll_per_token()).mean())
    rows = first.rows.cpu()
    moved = replace(first, rows=(rows + drift).clamp(min=0), again=None)
    if first.token_values is None:
        return moved
    if first.quality.fit in TOKEN_FITS:  # which says how each row's tokens lie, and these few rows do not
        own = first.token_values.cpu().split(lengths.tolist())
        multiples = (
            values.double().numpy() / max(float(level), _TINY) for values, level in zip(own, rows, strict=True)
        )
        return _with_tokens(moved, lengths, multiples)
    return _with_tokens(moved, lengths, _in_shape(lengths, now))


def given_levels(levels: Mapping[Any, float]) -> Levels:
    """Levels that the user has by other means, row 0 first."""
    values = torch.tensor([levels[row] for row in range(len(levels))])
    return Levels(values, LevelQuality(GIVEN, 0, len(values), float(values.mean())))


def _with_tokens(levels: Levels, lengths: np.ndarray, multiples: Iterable[np.ndarray]) -> Levels:
    """The same with levels of the answer tokens: the row's times multiples with mean 1."""
    rows = zip(levels.rows.double().numpy(), multiples, strict=True)
    values = torch.from_numpy(np.concatenate([level * own for level, own in rows])).float()
    return replace(levels, token_values=values, token_starts=torch.from_numpy(np.concatenate([[0], lengths.cumsum()])))


def _in_shape(lengths: np.ndarray, unseen: RowLogps) -> Iterator[np.ndarray]:
    """Ascending multiples of rows of so many tokens, all in the shape of unseen rows."""
    shape = Shape(unseen)
    shapes = {count: shape(count) for count in np.unique(lengths).tolist()}
    return (shapes[count] for count in lengths.tolist())


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
            f"the rank correlation of what the profile predicts with the NLL of unseen rows {known}: which forget "
            "row is the harder one is not known. Mean and spread of the levels still hold."
        )
