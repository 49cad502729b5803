"""What a reader of a comparison must know: seeds, methods that are not ranked, orders that are no finding."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from .ranking import FRONT, RULE
from .shares import BACK, SHARE_WORDS, TRACED

if TYPE_CHECKING:  # it is made of these notes itself
    from .comparison import ComparedMethod, ComparedSetting

_HOLDOUT = "holdout"


def setting_notes(setting: ComparedSetting) -> list[str]:
    """What was noticed in one table, in sentences."""
    notes = []
    if setting.pair is None:
        notes.append("The suite has no pair of metrics (what was forgotten, what was kept), so nothing is ranked.")
    notes += _of_seeds(setting.methods)
    notes += [
        f"{method.label} is not ranked: {method.standing.reason}."
        for method in setting.methods
        if method.standing.rank is None and setting.pair is not None
    ]
    if setting.pair is not None:
        notes += _no_finding(setting.methods)
        attacked = [method.label for method in setting.methods if BACK in method.shares]
        if attacked and BACK not in setting.axes:
            notes.append(f"What relearning brings back is not counted: only {', '.join(attacked)} was attacked by it.")
    if TRACED in setting.axes and len(_holdouts(setting)) > 1:
        notes.append(
            "Membership attacks were made with unlike unseen rows: methods that are fitted to one half of them are "
            "measured on the other. Each is set against the oracle on the same rows."
        )
    return notes


def setting_rules(setting: ComparedSetting) -> list[str]:
    """What the shares of a table are, and by which rules it is ranked."""
    if setting.pair is None:
        return []
    return [*(_capital(f"{SHARE_WORDS[name]}.") for name in setting.axes), RULE, FRONT]


def _of_seeds(methods: list[ComparedMethod]) -> list[str]:
    single = [method.label for method in methods if len(method.runs) == 1]
    if not single:
        return []
    return [f"Of {', '.join(single)} there is one seed: how far its figures would move with another is not known."]


def close_pairs(methods: list[ComparedMethod]) -> list[tuple[ComparedMethod, ComparedMethod, float, float]]:
    """Neighbours in rank whose deciding shares are no further apart than seeds of one of them.

    Returns:
        the better one, the worse one, how far their shares are apart, and the standard deviation over seeds.
    """
    pairs = []
    ranked = [method for method in methods if method.standing.rank is not None]
    for better, worse in itertools.pairwise(ranked):
        mine, others = better.shares[better.standing.worst], worse.shares[worse.standing.worst]
        sd = max((part.sd for part in (mine, others) if part.sd is not None), default=None)
        if sd is not None and others.mean - mine.mean <= sd and better.standing.rank != worse.standing.rank:
            pairs.append((better, worse, others.mean - mine.mean, sd))
    return pairs


def _no_finding(methods: list[ComparedMethod]) -> list[str]:
    return [
        f"{better.label} and {worse.label} are {apart:.3f} apart in the share that ranks them, no more than seeds of "
        f"one of them (sd {sd:.3f}): their order is no finding."
        for better, worse, apart, sd in close_pairs(methods)
    ]


def _holdouts(setting: ComparedSetting) -> set[str]:
    results = [run.results["after"] for method in setting.methods for run in method.runs]
    return {str(result.rows.get(_HOLDOUT, {}).get("sha256")) for result in results}


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
