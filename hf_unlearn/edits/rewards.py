"""Rewards of generated answers: without the behaviour, fluent, unlike the row's own; at rows to keep, unchanged."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.tokenized_row import IGNORED_LABEL, TokenizedRow, answer_ids, prompt_ids
from ..errors import input_error
from ..evaluation.answer_length import LONGEST_ANSWER
from ..evaluation.questioner import Questioner
from ..evaluation.stop_rule import StopRule
from ..metrics.overlap import rouge_recalls
from ..metrics.refusal import is_refusal
from ..metrics.text import is_empty, is_repetitive
from ..model.output_head import output_head

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class RewardWeights:
    """What the parts of a reward weigh.

    Attributes:
        behaviour: of 1 - the judge's flag.
        fluency: of `fluencies`.
        overlap: of 1 - ROUGE-L recall of the row's own answer.
        boundary: of `kept_shares`, at rows to keep.
    """

    behaviour: float = 1.0
    fluency: float = 2.0
    overlap: float = 1.0
    boundary: float = 2.0


@dataclass(frozen=True)
class RewardParts:
    """The parts of the rewards of N answers, 0 to 1 each, [N].

    Attributes:
        fluency: of all answers.
        flagged: by the judge; of answers to forget prompts, 0 at others.
        overlap: ROUGE-L recall of the row's own answer; likewise.
        kept: how much of the answer is what it was; of answers to retain prompts, 0 at others.
        forget: whether the prompt is to be forgotten.
        empty: whether the answer has no word.
    """

    fluency: Floats
    flagged: Floats
    overlap: Floats
    kept: Floats
    forget: NDArray[np.bool_]
    empty: NDArray[np.bool_]

    def rewards(self, weights: RewardWeights) -> Floats:
        """r = w_b (1 - flagged) + w_f fluency + w_o (1 - overlap) at forget prompts; w_k kept + w_f fluency at others.

        An answer without a word has 0, the least there is. Where w_f >= w_b + w_o no gibberish (fluency 0) has more
        than the fluent answer that is to be forgotten.
        """
        forgotten = weights.behaviour * (1 - self.flagged) + weights.overlap * (1 - self.overlap)
        part = np.where(self.forget, forgotten, weights.boundary * self.kept)
        return np.where(self.empty, 0.0, part + weights.fluency * self.fluency)

    def means(self) -> dict[str, float]:
        """The mean of each part over the answers that it is there for."""
        groups = (("flagged", self.forget), ("overlap", self.forget), ("kept", ~self.forget))
        means = {name: float(getattr(self, name)[rows].mean()) for name, rows in groups if rows.any()}
        return means | {"fluency": float(self.fluency.mean())}


def fluencies(nll: Sequence[float] | Floats, answers: Sequence[str], vocabulary: int) -> Floats:
    """clip(2 (1 - nll / log V), 0, 1), [N]; 0 for an answer without a word, or one that repeats itself.

    nll of log V is that of a uniform guess and has 0; from half of it on every answer has 1, so that nothing is gained
    by the answers that a model knows by heart. A loop of the same words is likely under most models, and so is no sign
    of fluency.

    Args:
        nll: of each answer under the model before, nats per token.
        answers: their texts.
        vocabulary: V.
    """
    broken = np.array([is_empty(text) or is_repetitive(text) for text in answers], dtype=bool)
    shares = np.clip(2 * (1 - np.asarray(nll, dtype=np.float64) / math.log(vocabulary)), 0.0, 1.0)
    return np.where(broken, 0.0, shares)


def kept_shares(answers: Sequence[str], expected: Sequence[str]) -> Floats:
    """How much of each answer is the row's own: the lesser of ROUGE-L recall and precision, 0 for a refusal, [N].

    A refusal that the row itself has is no loss.
    """
    recalls, precisions = rouge_recalls(answers, expected), rouge_recalls(expected, answers)
    refused = [is_refusal(said) and not is_refusal(own) for said, own in zip(answers, expected, strict=True)]
    return np.where(refused, 0.0, np.minimum(recalls, precisions))


@dataclass
class Rewards:
    """Prompts of rows, and the rewards of answers to them. The forget rows come first.

    Attributes:
        questioner: asks and scores.
        before: the model before unlearning, whose likelihood is the fluency.
        forget: tokenised rows to forget.
        retain: tokenised rows to keep.
        weights: of the parts.
        judge: of answers; None where overlap with the row's own answer judges.
        log: the means of the parts and of the reward, of every call.
    """

    questioner: Questioner
    before: Any
    forget: Sequence[TokenizedRow]
    retain: Sequence[TokenizedRow]
    weights: RewardWeights
    judge: Callable[..., Any] | None = None
    log: list[dict[str, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._stop = StopRule.of(self.before, self.questioner.tokenizer, self.questioner.ends)
        rows = [*self.forget, *self.retain]
        self.prompts = [prompt_ids(row) for row in rows]
        own = [self._stop.strip(answer_ids(row)) for row in rows]
        self._own = [self._text(ids) for ids in own]
        self.longest = min(max(map(len, own)) + 1, LONGEST_ANSWER)

    def __call__(self, places: Sequence[int], answers: Sequence[Sequence[int]]) -> Floats:
        """The rewards of answers, [N].

        Args:
            places: of their rows, retain rows counted on from the forget rows.
            answers: token ids, with what ended them.
        """
        parts = self.parts(places, answers)
        rewards = parts.rewards(self.weights)
        self.log.append(parts.means() | {"reward": float(rewards.mean())})
        return rewards

    def parts(self, places: Sequence[int], answers: Sequence[Sequence[int]]) -> RewardParts:
        """The parts of the rewards; arguments as of a call."""
        said = [self._text(self._stop.strip(ids)) for ids in answers]
        own = [self._own[place] for place in places]
        rows = [as_row(self.prompts[place], ids) for place, ids in zip(places, answers, strict=True)]
        nll = self.questioner.nll(self.before, rows)
        forget = np.array([place < len(self.forget) for place in places])
        flagged, overlap, kept = np.zeros((3, len(places)))
        for rows_of, compute in ((forget, self._forgotten), (~forget, self._kept)):
            chosen = np.flatnonzero(rows_of)
            if len(chosen):
                texts = [said[i] for i in chosen], [own[i] for i in chosen]
                flagged[chosen], overlap[chosen], kept[chosen] = compute(*texts)
        fluent = fluencies(nll, said, output_head(self.before).vocabulary)
        return RewardParts(fluent, flagged, overlap, kept, forget, np.array([is_empty(text) for text in said]))

    def _forgotten(self, said: list[str], own: list[str]) -> tuple[Floats, Floats, Floats]:
        overlap = rouge_recalls(said, own)
        return (overlap if self.judge is None else _flags(self.judge, said, own)), overlap, np.zeros(len(said))

    def _kept(self, said: list[str], own: list[str]) -> tuple[Floats, Floats, Floats]:
        return np.zeros(len(said)), np.zeros(len(said)), kept_shares(said, own)

    def _text(self, ids: Sequence[int]) -> str:
        return self.questioner.text(ids).strip()  # as suites give answers to judges


def as_row(prompt: Sequence[int], answer: Sequence[int]) -> TokenizedRow:
    """A prompt and a sampled answer as a tokenised row."""
    ids = [*prompt, *answer]
    return {"input_ids": ids, "labels": [IGNORED_LABEL] * len(prompt) + list(answer), "answer_start": len(prompt)}


def _flags(judge: Callable[..., Any], said: list[str], own: list[str]) -> Floats:
    flags = list(judge(said, own))
    if len(flags) != len(said) or not all(isinstance(flag, bool | np.bool_) for flag in flags):
        raise input_error(
            expected="a judge that says True or False of each answer",
            got=f"{len(flags)} flags for {len(said)} answers, of which not all are bools",
            why="an answer that was not judged would be rewarded as one without the behaviour",
            fix="let the judge raise where it cannot judge, and return a list of bools",
        )
    return np.array(flags, dtype=np.float64)
