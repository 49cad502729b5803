"""From profiles to levels: a straight line, with the tokens bent first where that tells unseen rows better."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ...model.score_rows import RowLogps
from .profile import Profile
from .regression import Agreement, Line, agreement, folds_of
from .token_fits import TokenFit, fit_curve, fit_trees

LINE, CURVE, TREES = "line", "curve", "trees"
TOKEN_FITS: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray], TokenFit]] = {
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
            of_tokens = TOKEN_FITS[way](profile.tokens, -unseen.logps.double().numpy(), weights)
        fitted = cls(way, Line(0.0, 1.0), of_tokens)
        return cls(way, Line.fit(fitted.bent(profile), unseen.nll_per_token().double().numpy()), of_tokens)

    def bent(self, profile: Profile) -> np.ndarray:
        """p of rows, [N]."""
        if self.of_tokens is None:
            return profile.rows
        return np.array([tokens.mean() for tokens in self.predicted_tokens(profile)])

    def predicted_tokens(self, profile: Profile) -> list[np.ndarray]:
        """Of each row what is predicted of its tokens, nats."""
        assert self.of_tokens is not None and profile.tokens is not None
        return np.split(self.of_tokens(profile.tokens), profile.lengths.cumsum()[:-1])

    def __call__(self, profile: Profile) -> np.ndarray:
        """Levels of rows, [N]."""
        return self.line(self.bent(profile))


@dataclass(frozen=True)
class LeftOut:
    """What is predicted of rows by what was fitted on the rows of other folds.

    Attributes:
        rows: of each row, [N], nats per token.
        tokens: of each token, [T], nats; None for "line", which knows of none.
    """

    rows: np.ndarray
    tokens: np.ndarray | None


def left_out(way: str, profile: Profile, unseen: RowLogps) -> LeftOut | None:
    """Every row as predicted by what was fitted on the rows of other folds; None below three rows.

    Args:
        way: see `LevelFit.of`.
        profile: of unseen rows.
        unseen: what the model gives them.
    """
    count = len(profile.rows)
    if count < 3:  # two that are left have a line through them whatever they are
        return None
    fold, rows = folds_of(count), np.empty(count)
    fold_of_token, tokens = np.repeat(fold, profile.lengths), np.empty(int(profile.lengths.sum()))
    for number in range(fold.max() + 1):
        others, own = (np.flatnonzero(part).tolist() for part in (fold != number, fold == number))
        fitted, own_profile = LevelFit.of(way, profile.select(others), unseen.select(others)), profile.select(own)
        rows[own] = fitted(own_profile)
        if fitted.of_tokens is not None:
            assert own_profile.tokens is not None
            tokens[fold_of_token == number] = fitted.of_tokens(own_profile.tokens)
    return LeftOut(rows, None if way == LINE else tokens)


@dataclass(frozen=True)
class ChosenFit:
    """The fit that levels are read off.

    Attributes:
        fit: on all calibration rows.
        residuals: what the NLL of unseen rows lies off what is predicted of them, [N].
        agreement: of rows left out with what was predicted of them; None below three rows.
        tokens: predicted of the tokens of rows left out, [T]; None for a line.
    """

    fit: LevelFit
    residuals: np.ndarray
    agreement: Agreement | None
    tokens: np.ndarray | None


def choose_fit(profile: Profile, unseen: RowLogps, *, fewest: int) -> ChosenFit:
    """Of line, curve and trees what tells rows left out best, by the mean distance; without tokens there is the line.

    Args:
        profile: of unseen rows.
        unseen: what the model gives them.
        fewest: rows below which there is nothing but the line.
    """
    nll = unseen.nll_per_token().double().numpy()
    line, told = LevelFit.of(LINE, profile, unseen), left_out(LINE, profile, unseen)
    if told is None:
        return ChosenFit(line, nll - line(profile), None, None)
    close = agreement(told.rows, nll)
    if np.ptp(profile.rows) == 0:  # what differs then is which rows were left out
        close = Agreement(None, None, close.error)
    best = ChosenFit(line, nll - line(profile), close, None)
    for way in (CURVE, TREES) if profile.tokens is not None and len(nll) >= fewest else ():
        told = left_out(way, profile, unseen)
        assert told is not None and best.agreement is not None
        close = agreement(told.rows, nll)
        if close.error < best.agreement.error:
            # Trees lie nearer to the rows that they were fitted on than to any others: levels must not.
            best = ChosenFit(LevelFit.of(way, profile, unseen), nll - told.rows, close, told.tokens)
    return best
