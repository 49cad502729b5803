"""Where rows stand among rows that no model was trained on: the leak of attacks that tell trained rows."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ..metrics.unseen import FOLDS, classifier_scores
from .rows import AttackedRows

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Folds = NDArray[np.int64]
Split = Callable[[Floats, Flags], Folds]

FEWEST = 8  # never-seen rows: below, a placement has too few steps to tell anything
SCORE = "share of never-seen rows that stand below the row (the mean is the AUC; 0.5 is chance)"


def too_few(rows: AttackedRows) -> str | None:
    """Why rows cannot be placed, as the end of a sentence."""
    if len(rows.unseen) < FEWEST or len(rows.rows) < FEWEST:
        return f"it needs {FEWEST} rows that were never seen, and as many to tell from them"
    return None


def placed(scores: Floats, unseen: Floats, rows: AttackedRows) -> Floats:
    """The share of never-seen rows with a score below each row's, ties counted half, [N].

    Where the rows are the never-seen ones themselves each stands among the others of its half, so that both halves
    have a mean of 0.5: chance, whichever of several scores is chosen by one of them.

    Args:
        scores: [N]; what is no number stands below all numbers.
        unseen: [M] of the never-seen rows.
        rows: whose scores these are.
    """
    own, others = (np.nan_to_num(values, nan=-np.inf, posinf=np.inf, neginf=-np.inf) for values in (scores, unseen))
    if not rows.control:
        return shares_below(own, others)
    shares = np.full(len(own), 0.5)
    for half in (rows.tuned, ~rows.tuned):
        count = int(half.sum())
        if count > 1:  # without itself, which is a tie
            shares[half] = (shares_below(own[half], own[half]) * count - 0.5) / (count - 1)
    return shares


def placed_by_classifier(features: Floats, unseen: Floats, rows: AttackedRows, split: Split) -> Floats:
    """The same by decision values of classifiers that tell rows from never-seen ones, [N].

    A row is scored by the classifier that was fitted without its fold, and stands among the never-seen rows of that
    fold: values of two classifiers have no common zero, and comparing them makes chance come out below 0.5. Where the
    rows are the never-seen ones themselves it tells one half from the other, and a row stands among those of the other
    half, on its own side.

    Args:
        features: [N, F].
        unseen: [M, F] of the never-seen rows.
        rows: whose features these are.
        split: the fold of each row, from features and flags of members.
    """
    table, member = classes(features, unseen, rows)
    folds = split(table, member)
    return placed_by_decision(classifier_scores(table, member, folds), member, folds, rows)


def classes(features: Floats, unseen: Floats, rows: AttackedRows) -> tuple[Floats, Flags]:
    """The rows of a classifier and which of them count as members: ([N + M, F], [N + M]); of controls, [N]."""
    if rows.control:
        return features, np.asarray(rows.tuned)
    return np.concatenate([features, unseen]), np.repeat([True, False], [len(features), len(unseen)])


def placed_by_decision(decisions: Floats, member: Flags, folds: Folds, rows: AttackedRows) -> Floats:
    """Placement by decision values of the rows of `classes`, each within its fold; 0.5 where it has none to face."""
    shares = np.full(len(decisions), 0.5)
    for fold in np.unique(folds):
        ours, theirs = (folds == fold) & member, (folds == fold) & ~member
        if ours.any() and theirs.any():
            shares[ours] = shares_below(decisions[ours], decisions[theirs])
            shares[theirs] = shares_below(-decisions[theirs], -decisions[ours])
    return shares if rows.control else shares[member]


def consecutive_folds(member: Flags, count: int = FOLDS) -> Folds:
    """Folds of rows that follow each other, of members and others apart, so that either kind is in every fold."""
    folds = np.empty(len(member), dtype=np.int64)
    count = min(count, int(member.sum()), int((~member).sum()))
    for kind in (member, ~member):
        folds[kind] = np.arange(int(kind.sum())) * count // int(kind.sum())
    return folds


def shares_below(scores: Floats, others: Floats) -> Floats:
    """For each score the share of others below it, ties counted half."""
    ordered = np.sort(others)
    below, up_to = np.searchsorted(ordered, scores, side="left"), np.searchsorted(ordered, scores, side="right")
    return (below + up_to) / 2 / len(ordered)
