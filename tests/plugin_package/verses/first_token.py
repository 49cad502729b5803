"""An attack: the answer's first token alone."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from hf_unlearn.attacks import Attack, AttackedRows, Leak, Target, Threat


@dataclass(frozen=True)
class FirstToken(Attack):
    """How likely the first token of each answer is, sharpened.

    Args:
        power: of the probability, above 0 and up to 1.
    """

    power: float = 0.5

    name = "first_token"
    threat = Threat.LOGITS
    formula = "p(y_1)^power"
    score = "probability of the answer's first token, sharpened"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("power", 0 < self.power <= 1, "above 0 and up to 1")

    def run(self, target: Target, rows: AttackedRows) -> Iterable[Leak]:
        first = np.exp([logps[0] for logps in target.logps(rows.rows)])
        yield Leak({"power": 1.0}, first)
        yield Leak({"power": self.power}, first**self.power)
