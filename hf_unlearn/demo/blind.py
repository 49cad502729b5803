"""Which is which? Columns in a drawn order without names, votes on them, and how likely such votes are by guessing."""

import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from scipy.stats import binomtest

from ..errors import input_error

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class Vote:
    """What a person took for a model, among columns without names.

    Attributes:
        sought: name of the model that was to be found.
        chosen: name of the model that was taken for it.
        choices: columns to choose from.
    """

    sought: str
    chosen: str
    choices: int

    @property
    def right(self) -> bool:
        """Whether it was found."""
        return self.sought == self.chosen


@dataclass(frozen=True)
class Found:
    """Votes on one model among so many columns.

    Attributes:
        sought: name of the model.
        choices: columns to choose from.
        right: votes that found it.
        votes: all of them.
    """

    sought: str
    choices: int
    right: int
    votes: int

    @property
    def chance(self) -> float:
        """The share of right votes that guessing gives."""
        return 1 / self.choices

    @property
    def p_value(self) -> float:
        """P(at least so many right votes by guessing), one-sided binomial test."""
        return float(binomtest(self.right, self.votes, self.chance, alternative="greater").pvalue)


def drawn_order(columns: int, source: random.Random) -> list[int]:
    """The places of columns in a drawn order."""
    return source.sample(range(columns), columns)


def tally(votes: Sequence[Vote]) -> list[Found]:
    """Votes by the model that was sought and the number of columns, in the order in which these came up."""
    kinds = dict.fromkeys((vote.sought, vote.choices) for vote in votes)
    of_kind = {kind: [vote for vote in votes if (vote.sought, vote.choices) == kind] for kind in kinds}
    return [Found(*kind, sum(vote.right for vote in cast), len(cast)) for kind, cast in of_kind.items()]


class TallyFile:
    """Votes that are kept in a file, a line of JSON each; names of models and numbers, no text of prompts or answers.

    Args:
        path: of the file; made with the first vote.

    Raises:
        ValueError: a folder, a folder that is not there, or a file with other lines.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if self.path.is_dir() or not self.path.absolute().parent.is_dir():
            got = "a folder" if self.path.is_dir() else "a file in a folder that is not there"
            raise self._wrong(got)
        self.votes = self._read() if self.path.is_file() else []

    def add(self, vote: Vote) -> None:
        """Keep a vote."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(vote)) + "\n")
        self.votes.append(vote)

    def _read(self) -> list[Vote]:
        try:
            lines = [json.loads(line) for line in self.path.read_text(encoding="utf-8").splitlines() if line.strip()]
            votes = [Vote(**line) for line in lines]
        except (ValueError, TypeError, OSError) as error:
            raise self._wrong(f"lines of another kind ({type(error).__name__})") from None
        if not all(
            isinstance(v.choices, int) and v.choices >= 2 and isinstance(v.sought, str) and isinstance(v.chosen, str)
            for v in votes
        ):
            raise self._wrong("a vote with other values")
        return votes

    def _wrong(self, got: str) -> ValueError:
        return input_error(
            expected="--tally with a file for votes, new or of an earlier `hf-unlearn demo`",
            got=f"{self.path.name}: {got}",
            why="votes are added to it, and counted with those before",
            fix="name a new file, or leave --tally out to keep no votes",
        )
