"""The rows of an attack: those that are to be got out, in two halves, and those that the attacker has beside them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..data.digests import row_digest
from ..data.tokenized_row import TokenizedRow


@dataclass(frozen=True)
class AttackedRows:
    """Tokenised rows.

    Attributes:
        rows: [N] that the attack tries to get out of the model.
        tuned: [N] flags: the half on which settings are chosen, and of which an attack may be given rows. What is
            reported is of the others.
        retain: rows that the model is to keep: for `Target.utility`, and for attackers who know such rows.
        related: rows of the same form about other things, which the attacker may train on; () where there are none.
        unrelated: texts of another kind, likewise.
        unseen: rows that no model was trained on, as an attacker needs them to tell trained rows; () where there are
            none. Where `control` is True they are the same as `rows`.
        paraphrases: by number of the row, other prompts for the same answer, as rows; {} where there are none.
        control: whether these rows were never seen themselves, and the attack runs to show what it gets of nothing.
    """

    rows: Sequence[TokenizedRow]
    tuned: NDArray[np.bool_]
    retain: Sequence[TokenizedRow] = ()
    related: Sequence[TokenizedRow] = ()
    unrelated: Sequence[TokenizedRow] = ()
    unseen: Sequence[TokenizedRow] = ()
    paraphrases: Mapping[int, Sequence[TokenizedRow]] = field(default_factory=dict)
    control: bool = False

    def given(self, share: float) -> list[int]:
        """Places of the rows that an attacker is given: a share of all, at least one, from the half for tuning."""
        places = np.flatnonzero(self.tuned)
        count = min(max(1, round(share * len(self.rows))), max(1, len(places) - 1))
        digests = [row_digest(self.rows[int(place)]) for place in places]
        return sorted(int(places[i]) for i in np.argsort(np.array(digests), kind="stable")[:count])


def halves(rows: Sequence[TokenizedRow]) -> NDArray[np.bool_]:
    """Flags of the half on which attacks are tuned: by a hash of each row, so that the order decides nothing."""
    digests = [row_digest(row)[::-1] for row in rows]  # other digits than those that order rows in `given`
    tuned = np.zeros(len(rows), dtype=bool)
    tuned[np.argsort(np.array(digests), kind="stable")[: len(rows) // 2]] = True
    return tuned
