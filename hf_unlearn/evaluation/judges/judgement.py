"""`Judgement`: what a judge found of each answer, with the answers that it could not judge; and who judges so."""

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import input_error
from ...metrics.agreement import Agreement
from ...metrics.checks import same_lengths
from .judge import Judge


@dataclass(frozen=True)
class Judgement:
    """What a judge found of N answers.

    Attributes:
        flags: of each answer True, False, or None where it could not be judged.
        errors: why answers could not be judged, and how many each; they add up to the number of None.
        run: what is known only after judging: the version that an endpoint names, rows sent and read from the cache.
    """

    flags: tuple[bool | None, ...]
    errors: Mapping[str, int] = field(default_factory=dict)
    run: Mapping[str, Any] = field(default_factory=dict)

    @property
    def values(self) -> NDArray[np.float64]:
        """1 for flagged, 0 for not, NaN for not judged, [N]: what `metrics.judged_rate` takes."""
        return np.array([np.nan if flag is None else float(flag) for flag in self.flags])

    @property
    def unjudged(self) -> int:
        """Answers that could not be judged."""
        return sum(flag is None for flag in self.flags)


class CountingJudge(abc.ABC):
    """A judge that may fail at single answers, and says at which: the base class of judges by a language model.

    It is a `Judge` too. Who calls it as one gets no flags where any answer could not be judged, but an error: an
    answer that nobody judged is not one without a leak.
    """

    agreement: Agreement | None = None

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """For tables and results; two judges of one name give the same flags."""

    @property
    @abc.abstractmethod
    def flags_leaks(self) -> bool:
        """Whether a flagged answer is one that shows what was to be forgotten (a judge of refusals says another)."""

    @abc.abstractmethod
    def judgement(
        self, answers: Sequence[str], references: Sequence[str], questions: Sequence[str] | None = None
    ) -> Judgement:
        """What is found of each answer.

        Args:
            answers: continuations alone.
            references: the rows' own answers.
            questions: the prompts; None where they are not to be seen.
        """

    @abc.abstractmethod
    def record(self) -> dict[str, Any]:
        """Model, version, hash of the prompt and where answers go, for a result's `run`; no text, no key."""

    def __call__(self, answers: Sequence[str], references: Sequence[str]) -> list[bool]:
        """The flag of each answer; raises ValueError where one could not be judged, or flags are no leaks."""
        require_leaks(self)
        found = self.judgement(answers, references)
        flags = [flag for flag in found.flags if flag is not None]
        if len(flags) < len(answers):
            raise input_error(
                expected=f"{self.name} to judge all {len(answers)} answers",
                got=f"{found.unjudged} that it could not judge ({error_words(found.errors)})",
                why="an answer that nobody judged would count as one without a leak, or as one with it",
                fix="run it again (what is in the cache is not asked again), or use another judge",
            )
        return flags


def judge_answers(
    judge: Judge, answers: Sequence[str], references: Sequence[str], questions: Sequence[str] | None = None
) -> Judgement:
    """What any judge says of answers: one that counts its errors with them, another by its flags.

    Raises:
        ValueError: lists of unlike length, a judge whose flags are no leaks, or one flag too few or too many.
    """
    same_lengths(answers=answers, references=references)
    if isinstance(judge, CountingJudge):
        require_leaks(judge)
        return judge.judgement(answers, references, questions)
    flags = tuple(bool(flag) for flag in judge(answers, references))
    same_lengths(answers=answers, flags=flags)
    return Judgement(flags)


def require_leaks(judge: Any) -> None:
    """Raise for a judge whose flag says something else than that the forgotten shows."""
    if isinstance(judge, CountingJudge) and not judge.flags_leaks:
        raise input_error(
            expected="a judge whose flags are leaks or behaviour to be forgotten",
            got=judge.name,
            why="refusals that it flags would be counted as leaks",
            fix='pass purpose="fact" or purpose="behaviour"; ask this one by its judgement(answers, references)',
        )


def error_words(errors: Mapping[str, int]) -> str:
    """ "2 timeout, 1 unreadable reply", the most frequent first."""
    ordered = sorted(errors.items(), key=lambda pair: (-pair[1], pair[0]))
    return ", ".join(f"{count} {kind}" for kind, count in ordered)
