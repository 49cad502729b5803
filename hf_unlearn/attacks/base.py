"""What an attack is: what its attacker can reach and is given, and how much of each row it gets out of a model."""

import abc
import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..component import Component
from .rows import AttackedRows
from .target import Target

# What is tried of an attack's budget, by name: {"rate": 1e-4, "step": 25}, {"bits": 4}, {"prefill": 3}.
Setting: TypeAlias = Mapping[str, int | float | str]


class Threat(enum.StrEnum):
    """What an attacker can reach, from the least to the most."""

    QUERIES = "queries"  # texts in, texts out
    LOGITS = "logits"  # probabilities of tokens, too
    WEIGHTS = "weights"  # the weights of the model after unlearning
    WEIGHTS_AND_BEFORE = "weights_and_before"  # those of the model before unlearning, too


@dataclass(frozen=True)
class Leak:
    """What an attack gets of every row in one setting.

    Attributes:
        setting: what was tried; the runner chooses among an attack's settings on one half of the rows and reports the
            other half.
        rows: [N] of the target's rows in their order, each 0 (nothing) to 1 (all of it), in the attack's `score`;
            NaN where the attacker was given the row.
        utility: of an attack that changes weights: mean answer probability of the retain rows afterwards
            (`Target.utility`); None where the model stays as it is.
    """

    setting: Setting
    rows: NDArray[np.float64]
    utility: float | None = field(default=None)


@dataclass(frozen=True)
class Attack(Component, abc.ABC):
    """Tries to get rows out of a model. A frozen dataclass whose arguments are its budget.

    The same attack runs on the model after unlearning and on its controls (a retrained model, rows that were never
    seen, the model before), so it knows nothing of which of them it is given. It must not change what it is given, and
    its result must follow from target, rows and `target.seed` alone.

    Class attributes:
        threat: what its attacker can reach.
        given: what the attacker knows, beside the model, in words; never counted as leaked.
        score: what a leak of 1 means, in words.
        cost: what it takes, in words.
        content: whether a high leak gives away what a row says; False for those that only tell that it was trained on.
        places: whether a leak is a place among a half of the never-seen rows, whose own chance widens the interval.
        teaches: whether it trains on such rows; the model before unlearning, which knows them, is measured as it is.
        formula, paper, name: as of every component.
    """

    threat: ClassVar[Threat]
    given: ClassVar[str] = "the prompts"
    score: ClassVar[str] = "probability of the answer, exp(-nll per token)"
    cost: ClassVar[str] = ""
    content: ClassVar[bool] = True
    places: ClassVar[bool] = False
    teaches: ClassVar[bool] = False

    @abc.abstractmethod
    def run(self, target: Target, rows: AttackedRows) -> Iterable[Leak]:
        """The leak in every setting, the one in which nothing was done first, so that no attack helps less than none.

        Args:
            target: the model and what it is asked through.
            rows: what is to be got out, and the rows that the attacker has beside them.
        """

    def unfit(self, target: Target, rows: AttackedRows) -> str | None:
        """Why it cannot be tried, as the end of a sentence ("there is no adapter to remove"); None where it can."""
        return None
