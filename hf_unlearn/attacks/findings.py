"""From the leaks of every attack on every subject to findings: excess, rows recovered, the worst case per class."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace

import numpy as np
from numpy.typing import NDArray

from ..results.attack_report import (
    BEFORE,
    MODEL,
    ORACLE,
    UNSEEN,
    AttackFinding,
    SubjectLeak,
    WorstCase,
    recovered_rows,
)
from .base import Attack, Threat
from .choice import steps_to_half
from .excess import Compared, excesses

Leaks = Mapping[str, SubjectLeak]


def findings_and_worst(
    attacks: Mapping[str, Attack], leaks: Mapping[str, Leaks], *, unseen: int, seed: int
) -> tuple[list[AttackFinding], dict[str, WorstCase]]:
    """Every attack's finding, and the worst case of every threat class of which one was tried.

    Args:
        attacks: by name.
        leaks: by attack, the leak of each subject.
        unseen: never-seen rows.
        seed: of the resamples.
    """
    subjects = {name: _with_steps(_one_oracle(of)) for name, of in leaks.items()}
    among = unseen - unseen // 2  # never-seen rows that the rows reported are placed among
    compared = {name: _compared(of, among if attacks[name].places else 0) for name, of in subjects.items()}
    taken = {name: _recovered(of) for name, of in subjects.items()}
    excess, _ = excesses(compared, seed=seed)
    findings = [
        AttackFinding(
            name=name,
            arguments=asdict(attacks[name]),
            threat=str(attacks[name].threat),
            given=attacks[name].given,
            score=attacks[name].score,
            formula=attacks[name].formula,
            paper=attacks[name].paper,
            subjects=dict(of),
            excess=excess.get(name),
            recovered=float(taken[name].mean()) if attacks[name].content else 0.0,
            content=attacks[name].content,
        )
        for name, of in subjects.items()
    ]
    classes = {str(threat): _of_class(attacks, list(subjects), threat) for threat in Threat}
    return findings, {
        threat: _worst(attacks, names, compared, taken, seed) for threat, names in classes.items() if names
    }


def _of_class(attacks: Mapping[str, Attack], names: Sequence[str], threat: Threat) -> list[str]:
    """The attacks of a class and of weaker ones; none where no attack is of the class itself."""
    order = list(Threat)
    own = [name for name in names if attacks[name].threat is threat]
    return [name for name in names if order.index(attacks[name].threat) <= order.index(threat)] if own else []


def _worst(
    attacks: Mapping[str, Attack],
    names: Sequence[str],
    compared: Mapping[str, Compared],
    taken: Mapping[str, NDArray[np.bool_]],
    seed: int,
) -> WorstCase:
    own, largest = excesses({name: compared[name] for name in names}, seed=seed)
    top = max(own, key=lambda name: own[name].value) if own else max(names, key=lambda n: compared[n].model.mean())
    content = [taken[name] for name in names if attacks[name].content]
    return WorstCase(top, largest, float(np.any(content, axis=0).mean()) if content else 0.0)


def _one_oracle(leaks: Leaks) -> dict[str, SubjectLeak]:
    """Of several oracles the one that gives away most."""
    oracles = [leak for name, leak in leaks.items() if name.startswith(ORACLE)]
    others = {name: leak for name, leak in leaks.items() if not name.startswith(ORACLE)}
    order = (MODEL, ORACLE, UNSEEN, BEFORE)
    kept = others | ({ORACLE: max(oracles, key=lambda leak: leak.leak)} if oracles else {})
    return {name: kept[name] for name in order if name in kept}


def _with_steps(leaks: dict[str, SubjectLeak]) -> dict[str, SubjectLeak]:
    old = leaks[BEFORE].untouched if BEFORE in leaks else None
    if old is None:
        return leaks
    return {name: replace(leak, steps_to_half=steps_to_half(leak, old)) for name, leak in leaks.items()}


def _compared(leaks: Leaks, placed_among: int) -> Compared:
    rows = {name: np.array(leak.rows) for name, leak in leaks.items()}
    return Compared(rows[MODEL], rows.get(ORACLE), rows.get(UNSEEN), placed_among)


def _recovered(leaks: Leaks) -> NDArray[np.bool_]:
    return recovered_rows({name: leak.rows for name, leak in leaks.items()})
