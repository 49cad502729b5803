"""From profiles to levels: a straight line, with the tokens bent first where that tells unseen rows better."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ...model.score_rows import RowLogps
from .profile import Profile
from .regression import Agreement, Line, agreement, folds_of
from .token_fits import TokenFit, fit_curve, fit_trees

LINE, CURVE, TREES = "line", "curve", "trees"
_TOKEN_FITS: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray], TokenFit]] = {
    CURVE: fit_curve,
    TREES: fit_trees,
}


@dataclass(frozen=True)
class LevelFit:
    """tau = a + b p, where p is a row's profile: the mean of its tokens' numbers, which a token fit may have bent.

    Attributes:
        way: "line" (tokens as they are), "curve" or "trees".
        line: a and b.
        of_tokens: what bends the tokens; None for "line".
    """

    way: str
    line: Line
    of_tokens: TokenFit | None

    @classmethod
    def of(cls, way: str, profile: Profile, unseen: RowLogps) -> "LevelFit":
        """Fitted on unseen rows, the tokens of each of which weigh 1 together.

        Args:
            way: "line", "curve" or "trees"; the last two need the profile's tokens.
            profile: of these rows.
            unseen: what the model gives them.
        """
        of_tokens = None
        if way != LINE:
            assert profile.tokens is not None, f"{way} is fitted on tokens"
            weights = np.repeat(1 / profile.lengths, profile.lengths)
            of_tokens = _TOKEN_FITS[way](profile.tokens, -unseen.logps.double().numpy(), weights)
        fitted = cls(way, Line(0.0, 1.0), of_tokens)
        return cls(way, Line.fit(fitted.bent(profile), unseen.nll_per_token().double().numpy()), of_tokens)

    def bent(self, profile: Profile) -> np.ndarray:
        """p of rows, [N]."""
        if self.of_tokens is None:
            return profile.rows
        assert profile.tokens is not None
        starts = profile.lengths.cumsum() - profile.lengths
        return np.add.reduceat(self.of_tokens(profile.tokens), starts) / profile.lengths

    def __call__(self, profile: Profile) -> np.ndarray:
        """Levels of rows, [N]."""
        return self.line(self.bent(profile))


def left_out(way: str, profile: Profile, unseen: RowLogps) -> np.ndarray | None:
    """Every row as predicted by what was fitted on the rows of other folds, [N]; None below three rows.

    Args:
        way: see `LevelFit.of`.
        profile: of unseen rows.
        unseen: what the model gives them.
    """
    count = len(profile.rows)
    if count < 3:  # two that are left have a line through them whatever they are
        return None
    fold, predicted = folds_of(count), np.empty(count)
    for number in range(fold.max() + 1):
        others, own = (np.flatnonzero(part).tolist() for part in (fold != number, fold == number))
        fitted = LevelFit.of(way, profile.select(others), unseen.select(others))
        predicted[own] = fitted(profile.select(own))
    return predicted


@dataclass(frozen=True)
class ChosenFit:
    """The fit that levels are read off.

    Attributes:
        fit: on all calibration rows.
        residuals: what the NLL of unseen rows lies off what is predicted of them, [N].
        agreement: of rows left out with what was predicted of them; None below three rows.
    """

    fit: LevelFit
    residuals: np.ndarray
    agreement: Agreement | None


def choose_fit(profile: Profile, unseen: RowLogps, *, fewest: int) -> ChosenFit:
    """Of line, curve and trees what tells rows left out best, by the mean distance; without tokens there is the line.

    Args:
        profile: of unseen rows.
        unseen: what the model gives them.
        fewest: rows below which there is nothing but the line.
    """
    nll = unseen.nll_per_token().double().numpy()
    tried = [LINE] if profile.tokens is None or len(nll) < fewest else [LINE, CURVE, TREES]
    predicted = {way: left_out(way, profile, unseen) for way in tried}
    told = {way: None if rows is None else agreement(rows, nll) for way, rows in predicted.items()}
    way = LINE if len(tried) == 1 else min(tried, key=lambda name: told[name].error)  # type: ignore[union-attr]
    fit = LevelFit.of(way, profile, unseen)
    # Trees lie nearer to the rows that they were fitted on than to any others: levels must not.
    from_rows = fit(profile) if way == LINE else predicted[way]
    of_way = told[way]
    if of_way is not None and np.ptp(profile.rows) == 0:  # what differs then is which rows were left out
        of_way = Agreement(None, None, of_way.error)
    return ChosenFit(fit, nll - from_rows, of_way)
