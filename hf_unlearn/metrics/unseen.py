"""How near losses of forget rows come to those of rows never seen: KS distances, what chance gives, a classifier."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .checks import Floats, number_rows, numbers, same_lengths
from .description import MetricDescription
from .membership import loss_scores, membership_auc, min_k_scores, zlib_scores
from .result import MetricResult

QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
FOLDS = 5
_RESAMPLES = 200
_CHANCE = 0.95


def loss_distance(losses: Any, others: Any) -> MetricResult:
    """Largest gap between the distribution functions of two sets of losses, 0 (same) to 1: the KS statistic.

    D = max_x |F(x) - G(x)|. What counts as a large gap depends on the number of rows: `chance_distance` says which gap
    chance gives. n counts the rows of both sets. No interval.

    Args:
        losses: [N] of forget rows, one number a row (its NLL per token) or one a token, row by row.
        others: [M] of rows never seen, likewise.

    Raises:
        ValueError: no rows, or one without tokens.
    """
    from scipy.stats import ks_2samp  # scipy.stats takes a quarter of a second, which training has no use for

    own, unseen = _rows("losses", losses), _rows("others", others)
    n, pooled = len(own) + len(unseen), (np.concatenate(own), np.concatenate(unseen))
    if any(np.isnan(values).any() for values in pooled):
        return MetricResult(math.nan, n)
    return MetricResult(float(ks_2samp(*pooled, method="asymp").statistic), n)


def chance_distance(others: Any, rows: int, other_rows: int | None = None, *, seed: int = 0) -> MetricResult:
    """The `loss_distance` that two draws of never-seen rows stay below 95 times in 100.

    Whole rows are drawn with replacement, 200 times, so that tokens of a row stay together: as many as there are
    forget rows, and as many as there are rows never seen.

    Args:
        others: [M] losses of rows never seen, one number a row or one a token, row by row.
        rows: how many forget rows they are compared with.
        other_rows: how many rows never seen; M where it is left out.
        seed: of the draws.

    Raises:
        ValueError: no rows, or one without tokens.
    """
    unseen = _rows("others", others)
    unseen = sorted(unseen, key=lambda row: (len(row), row.tolist()))  # the rows decide what is drawn, not their order
    values = np.concatenate(unseen)
    if np.isnan(values).any():
        return MetricResult(math.nan, len(unseen))
    order = np.argsort(values, kind="stable")
    owner = np.repeat(np.arange(len(unseen)), [len(row) for row in unseen])[order]
    # Distribution functions are compared where a value is passed, not between equal values.
    last = np.flatnonzero(np.append(np.diff(values[order]) > 0, True))
    generator = np.random.default_rng(seed)

    def drawn(count: int) -> Floats:
        times = np.bincount(generator.integers(len(unseen), size=count), minlength=len(unseen))
        passed = np.cumsum(times[owner])
        return passed[last] / passed[-1]

    sizes = (rows, len(unseen) if other_rows is None else other_rows)
    gaps = [float(np.abs(drawn(sizes[0]) - drawn(sizes[1])).max()) for _ in range(_RESAMPLES)]
    return MetricResult(float(np.quantile(gaps, _CHANCE)), len(unseen))


def loss_features(logps: Any, texts: Any) -> NDArray[np.float64]:
    """What a classifier of losses sees of each row: mean, quantiles, min-k and zlib score of its log-probs, [N, 8].

    Args:
        logps: N rows of token log-probabilities, nats.
        texts: their N texts.

    Raises:
        ValueError: no rows, one without tokens, or lengths that differ.
    """
    rows = number_rows("logps", logps)
    quantiles = [np.quantile(row, QUANTILES) for row in rows]
    return np.column_stack([loss_scores(rows), *np.transpose(quantiles), min_k_scores(rows), zlib_scores(rows, texts)])


def loss_classifier_auc(member_features: Any, nonmember_features: Any, *, seed: int = 0) -> MetricResult:
    """AUC of a classifier that learns from some rows' losses whether others were forgotten or never seen.

    A logistic regression on standardised features, both classes weighed alike, in 5 folds: each row is scored by one
    that was fitted without it. Unlike the attacks by one score it finds rows by the shape of their losses. Interval
    as of `membership_auc`. It learns from labels that an attacker does not have, hence it is a bound on what a
    threshold on such features could tell. An AUC below 0.5 is chance, which each fold's fit pushes a little down.

    Args:
        member_features: [N, F] of `loss_features`, forget rows; N of 2 or more.
        nonmember_features: [M, F] of rows never seen; M of 2 or more.
        seed: of the folds and of the interval's resamples.

    Raises:
        ValueError: no rows, or numbers of features that differ.
    """
    members, others = _table("member_features", member_features), _table("nonmember_features", nonmember_features)
    same_lengths(member_features=members[0], nonmember_features=others[0])
    table = np.concatenate([members, others])
    if not np.isfinite(table).all():
        return MetricResult(math.nan, len(table), math.nan, math.nan, "bootstrap")
    member = np.repeat([True, False], [len(members), len(others)])
    scores = classifier_scores(table, member, drawn_folds(table, member, seed))
    return membership_auc(scores[: len(members)], scores[len(members) :], seed=seed)


def drawn_folds(features: NDArray[np.float64], member: NDArray[np.bool_], seed: int = 0) -> NDArray[np.int64]:
    """The fold of each row, [N]: 5 drawn ones with a share of members and others in each, of the smaller kind at most.

    The rows decide who is in which fold, not their order.

    Args:
        features: [N, F].
        member: [N] flags, two or more of either kind.
        seed: of the draw.
    """
    from sklearn.model_selection import StratifiedKFold

    count = min(FOLDS, int(member.sum()), int((~member).sum()))
    order = np.lexsort((*features.T, ~member))
    splits = StratifiedKFold(count, shuffle=True, random_state=seed).split(features[order], member[order])
    folds = np.empty(len(features), dtype=np.int64)
    for number, (_, scored) in enumerate(splits):
        folds[order[scored]] = number
    return folds


def classifier_scores(
    features: NDArray[np.float64], member: NDArray[np.bool_], folds: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Decision value of each row by a classifier that was fitted on the other folds, [N]; higher: more like a member.

    A logistic regression on standardised features, both classes weighed alike.

    Args:
        features: [N, F], finite.
        member: [N] flags.
        folds: [N] the fold of each row.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import PredefinedSplit, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=1000))
    scores: NDArray[np.float64] = cross_val_predict(
        model, features, member, cv=PredefinedSplit(folds), method="decision_function"
    )
    return scores


def level_correlation(losses: Any, retrained_losses: Any) -> MetricResult:
    """Spearman's rank correlation of the rows' losses with those under the retrained model, -1 to 1; n: rows.

    NaN where all rows have one loss. No interval.

    Args:
        losses: [N] NLL per token of forget rows, nats.
        retrained_losses: [N] of the same rows under the model retrained without them.

    Raises:
        ValueError: no rows, or lengths that differ.
    """
    from scipy.stats import spearmanr

    own, others = _pair(losses, retrained_losses)
    if len(own) < 2 or np.ptp(own) == 0 or np.ptp(others) == 0:
        return MetricResult(math.nan, len(own))
    return MetricResult(float(spearmanr(own, others).statistic), len(own))


def level_error(losses: Any, retrained_losses: Any) -> MetricResult:
    """Median over rows of |loss - loss under the retrained model|, nats per token; n: rows. No interval.

    Args:
        losses: [N] NLL per token of forget rows, nats.
        retrained_losses: [N] of the same rows under the model retrained without them.

    Raises:
        ValueError: no rows, or lengths that differ.
    """
    own, others = _pair(losses, retrained_losses)
    return MetricResult(float(np.median(np.abs(own - others))), len(own))


def _rows(name: str, given: Any) -> Sequence[Floats]:
    """Losses as rows of one or more: a plain number is a row of one."""
    single = isinstance(given, np.ndarray) and given.ndim == 1 and given.dtype != object
    if single or (isinstance(given, Sequence) and given and isinstance(given[0], int | float)):
        return [np.array([value]) for value in numbers(name, given)]
    return number_rows(name, given)


def _pair(losses: Any, retrained_losses: Any) -> tuple[Floats, Floats]:
    own, others = numbers("losses", losses), numbers("retrained_losses", retrained_losses)
    same_lengths(losses=own, retrained_losses=others)
    return own, others


def _table(name: str, features: Any) -> NDArray[np.float64]:
    """Rows of features, sorted: the rows decide who is in which fold, not their order."""
    table = np.stack(number_rows(name, features))
    return table[np.lexsort(table.T)]


DESCRIPTIONS = (
    MetricDescription(
        "level_ks",
        "row NLLs from unseen rows (KS)",
        "largest gap between the distributions of forget and unseen rows' NLL per token",
    ),
    MetricDescription("level_ks_chance", "row NLLs between unseen rows (KS, 95%)", "what chance gives at most"),
    MetricDescription(
        "token_ks",
        "token losses from unseen rows (KS)",
        "largest gap between the distributions of forget and unseen rows' token losses",
    ),
    MetricDescription("token_ks_chance", "token losses between unseen rows (KS, 95%)", "what chance gives at most"),
    MetricDescription(
        "loss_features_auc",
        "membership AUC (classifier of losses)",
        "cross-validated classifier of forget rows against unseen rows; 0.5 is a guess",
        attack="classifier of losses",
    ),
    MetricDescription(
        "oracle_level_ks",
        "row NLLs from the oracle's (KS)",
        "largest gap between the distributions of the forget rows' NLL per token here and under the oracle",
    ),
    MetricDescription(
        "oracle_level_ks_chance", "row NLLs from the oracle's by chance (KS, 95%)", "what chance gives at most"
    ),
    MetricDescription(
        "oracle_level_correlation",
        "row NLLs with the oracle's (Spearman)",
        "rank correlation of the forget rows' NLL per token with the oracle's",
    ),
    MetricDescription(
        "oracle_level_error",
        "row NLLs off the oracle's (median)",
        "median difference of the forget rows' NLL per token from the oracle's",
        "nats per token",
    ),
)
