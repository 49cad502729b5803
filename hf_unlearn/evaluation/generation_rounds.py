"""Which answers are generated in one call, and until when: what has ended leaves, and what waits comes in.

`generate` goes on for all rows of a batch until the last has ended, and keeps its cache for all of them. So a call
ends when most of its answers have ended, or when the tokens that a batch may hold are used up; answers that have not
ended go on in a later call, which reads them again. Reading is one forward, however many tokens there are.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import StoppingCriteria

from ..model.score_rows import rows_together
from .stop_rule import StopRule

# Chosen by answers of TOFU's lengths: measured on a CPU, where reading a token costs a third of generating it, and
# computed for a GPU, where a step takes as long for many rows as for few. Transformers' own continuous batching takes
# neither our draws nor ends in text, and refuses caches other than those of full and of sliding attention.
_FIRST_TOKENS = 32  # that there is to be space for after a short prompt, before any answer is known
_ENOUGH = 3 / 4  # of a call's answers have ended: the rest leaves
_FEW = 1 / 4  # of a call's answers have ended when its space is used up: answers are longer than was thought
_TIMES = 4  # as many rows as `batch_size` at most: each row has logits and noise of a whole vocabulary at each step


@dataclass
class Answer:
    """An answer under way.

    Attributes:
        place: of its prompt.
        prompt: token ids.
        said: its tokens so far.
        room: tokens that it may have.
        noise: state of the generator of its draws; None before the first.
    """

    place: int
    prompt: Sequence[int]
    said: list[int]
    room: int
    noise: Tensor | None = None

    @property
    def ids(self) -> list[int]:
        """The prompt, and the answer so far."""
        return [*self.prompt, *self.said]

    @property
    def length(self) -> int:
        """Tokens of both."""
        return len(self.prompt) + len(self.said)

    @property
    def left(self) -> int:
        """Tokens that it may still get."""
        return self.room - len(self.said)


@dataclass(frozen=True)
class Call:
    """What `generate` is asked at once.

    Attributes:
        answers: that go on in it.
        tokens: that each of them gets at most.
        enough: so many ended answers end the call.
    """

    answers: list[Answer]
    tokens: int
    enough: int


class Rounds:
    """Calls, one after another, until all answers have ended; after each, `back` is told of those that have not.

    A call holds no more tokens, padding and those still to come included, than `batch_size` whole answers to the
    longest prompt take. First come the prompts, in their order, with space for some tokens; then the answers that have
    not ended. Where few have ended when that space is used up, the next calls have twice the space, and fewer rows.

    Args:
        answers: the longest first.
        kind: what the answers of one call have in common.
        batch_size: answers of a call if all were as long as the longest may get; more of shorter ones. 1 stays 1.
        longest: tokens of the longest prompt with a whole answer.
        early: whether answers may be read again; else each call goes on to the end.
    """

    def __init__(
        self, answers: Sequence[Answer], kind: Callable[[Answer], Any], batch_size: int, longest: int, early: bool
    ) -> None:
        self._kind, self._batch_size, self._longest, self._early = kind, batch_size, longest, early
        self._waiting: dict[Any, deque[Answer]] = {}
        self._times = 1
        self._wait(answers)

    def __iter__(self) -> Iterator[Call]:
        while self._waiting:
            yield self._next()

    def back(self, call: Call, unended: Sequence[Answer]) -> None:
        """The answers of a call that have not ended go on later."""
        if len(unended) > (1 - _FEW) * len(call.answers):
            self._times *= 2
        self._wait(unended)

    def _wait(self, answers: Sequence[Answer]) -> None:
        for answer in answers:
            self._waiting.setdefault(self._kind(answer), deque()).append(answer)

    def _next(self) -> Call:
        kind = max(self._waiting)
        queue, most = self._waiting[kind], _TIMES * self._batch_size
        answers = [queue.popleft()]
        length, tokens = answers[0].length, self._space(answers[0])
        while queue:
            longer, more = max(length, queue[0].length), max(tokens, self._space(queue[0]))
            if len(answers) >= min(most, rows_together(self._batch_size, self._longest, longer + more)):
                break
            length, tokens = longer, more
            answers.append(queue.popleft())
        # What of the space nobody else takes is theirs.
        tokens = max(tokens, self._batch_size * self._longest // len(answers) - length)
        if not queue:
            del self._waiting[kind]
        enough = math.ceil(_ENOUGH * len(answers)) if queue and self._early else len(answers)
        return Call(answers, min(tokens, max(answer.left for answer in answers)), enough)

    def _space(self, answer: Answer) -> int:
        """Tokens that there has to be space for: at least as many again, or the rest."""
        return min(answer.left, max(answer.length, _FIRST_TOKENS) * self._times) if self._early else answer.left


class EnoughEnded(StoppingCriteria):
    """Ends a call of `generate` when enough of its answers have ended, and tells which have.

    Args:
        stop: what ends an answer.
        answers: of the batch, which go on behind the tokens that they have.
        length: of the batch before its first step, padding included.
        enough: so many ended answers end the call.
        device: of the batch.
    """

    def __init__(self, stop: StopRule, answers: Sequence[Answer], length: int, enough: int, device: Any) -> None:
        self._texts = stop.criteria([length - len(answer.said) for answer in answers])
        self._ends = torch.tensor(stop.ends.tokens, device=device)
        self._left = torch.tensor([answer.left for answer in answers], device=device)
        self._enough, self._steps = enough, 0
        self._ended_at = torch.zeros_like(self._left)  # 0: it goes on

    def __call__(self, input_ids: Tensor, scores: Tensor, **kwargs: Any) -> Any:
        self._steps += 1
        ended = torch.isin(input_ids[:, -1], self._ends) | (self._left <= self._steps)
        if self._texts:
            ended |= self._texts(input_ids, scores)
        self._ended_at = torch.where((self._ended_at == 0) & ended, self._steps, self._ended_at)
        ended = self._ended_at > 0
        return ended | (ended.sum() >= self._enough)

    def ended(self, steps: int) -> list[bool]:
        """Which answers ended within so many steps: `generate` may go a step further than what it gives."""
        return ((self._ended_at > 0) & (self._ended_at <= steps)).tolist()
