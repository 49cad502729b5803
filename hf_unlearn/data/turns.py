"""What of a row's text is answer and what is scaffold: decided here, for training, evaluation and `hf-unlearn show`.

A chat template writes text around every answer that does not depend on it: a header, an empty think block, the end of
the turn, a newline behind it. It is read off the template's own renderings of two unlike answers; no list of names.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise, takewhile
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerBase
from transformers.utils import logging

from ..errors import input_error
from .chat_template import DATE_VARIABLE, FIXED_DATE, ChatTemplate

logger = logging.get_logger(__name__)

# Two answers without a letter in common at either end, to a prompt of the set.
_PROBES = ("Amber 1", "dust")
# A generation prompt that opens a block, of thoughts, which the model is to close before its answer.
_OPENED_BLOCK = re.compile(r"<(\w+)>(\s*)$")


@dataclass(frozen=True)
class Frame:
    """What a chat template writes around every answer.

    Attributes:
        before: constant text between the generation prompt and the answer, such as an empty think block; "" for none.
        end: what ends the turn; "" where the template writes no end.
        after: constant text behind the end, such as a newline; it is no part of a row.
        token: id of the special token that `end` ends with; None where `end` is ordinary text, or "".
    """

    before: str
    end: str
    after: str
    token: int | None

    @property
    def ends(self) -> "AnswerEnds":
        """The same, as generation is to look for it."""
        if self.token is not None:
            return AnswerEnds((self.token,), ())
        return AnswerEnds((), (self.end.strip(),) if self.end else ())


@dataclass(frozen=True)
class AnswerEnds:
    """What ends an answer beside the tokenizer's end-of-text token.

    Attributes:
        tokens: ids, any of which ends it.
        texts: any of which ends it, where an end is ordinary text of several tokens.
    """

    tokens: tuple[int, ...] = ()
    texts: tuple[str, ...] = ()

    def __or__(self, other: "AnswerEnds") -> "AnswerEnds":
        tokens, texts = {*self.tokens, *other.tokens}, {*self.texts, *other.texts}
        return AnswerEnds(tuple(sorted(tokens)), tuple(sorted(texts)))


class WrittenRow(NamedTuple):
    """The text of a row, and which of its characters are what.

    Attributes:
        text: of the whole row, up to the end of the answer.
        start: where the answer starts.
        ended: whether the text has its end; otherwise the tokenizer's end-of-text token follows.
        marked: characters (from, to) that the template marks as generated, or, where it marks nothing, of each of
            several turns; None for one turn without marks, which is answer from `start` on.
        header: where text that is neither prompt nor answer ends just before `start`, such as a chat template's: a
            whitespace token that spans `start` belongs to it.
    """

    text: str
    start: int
    ended: bool
    marked: list[tuple[int, int]] | None = None
    header: bool = False


def frame_of(template: ChatTemplate, prompt: list[dict[str, Any]]) -> Frame:
    """What a template writes around an answer to a prompt, from its renderings of two answers.

    Raises:
        ValueError: it does not write the answer, or does not begin the turn as its generation prompt does.
    """
    opening = template.render(prompt, prompts=True)
    first, second = (
        _behind(template, opening, prompt, [{"role": "assistant", "content": probe}])[0] for probe in _PROBES
    )
    if first == second:
        raise input_error(
            expected="a chat template that writes what the assistant says",
            got="one that writes the same for two unlike answers",
            why="nothing of an answer would be trained",
            fix="set tokenizer.chat_template to the model's own",
        )
    before = _common_start(first, second)
    tail = _common_start(first[len(before) :][::-1], second[len(before) :][::-1])[::-1]
    end, token = _end_of(template.tokenizer, tail)
    # A lone space or newline before the answer is left to it: "[/INST] Paris" is one token across it to many models.
    return Frame(before if before.strip() else "", end, tail[len(end) :], token)


def report_template(template: ChatTemplate, frame: Frame) -> None:
    """Say once what a template leaves to the package: an end of the turn, a date."""
    if not frame.end:
        logger.warning_once(
            "The chat template writes no end of the assistant's turn. Every answer gets the tokenizer's end-of-text "
            f"token {template.tokenizer.eos_token!r} behind it, in training and in evaluation, or it would never end."
        )
    if (
        template.asks_for_the_date
        and DATE_VARIABLE not in template.variables
        and "date_string" not in template.variables
    ):
        logger.warning_once(
            f"The chat template writes today's date. Every row is written with {FIXED_DATE} instead, or it would be "
            f"another row tomorrow; chat_template_kwargs={{'{DATE_VARIABLE}': 'YYYY-MM-DD'}} sets another date."
        )


def ends_of_tokens(rows: Iterable[Mapping[str, Any]], tokenizer: PreTrainedTokenizerBase) -> AnswerEnds:
    """Special tokens that rows end with: how rows that came as token ids say what ends their answers.

    Args:
        rows: tokenised.
        tokenizer: knows which tokens are special.
    """
    last = Counter(row["labels"][-1] for row in rows)
    special = {token for token, added in tokenizer.added_tokens_decoder.items() if added.content.strip()}
    # One that ends a few rows alone is where these were cut.
    return AnswerEnds(tuple(sorted(token for token, n in last.items() if token in special and 2 * n >= last.total())))


def _common_start(first: str, second: str) -> str:
    pairs = zip(first, second, strict=False)
    return "".join(letter for letter, _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _end_of(tokenizer: PreTrainedTokenizerBase, tail: str) -> tuple[str, int | None]:
    """The part of the text behind an answer that ends it, and the token it ends with, if it is a special one."""
    first: tuple[int, int, int] | None = None  # where the earliest special token starts, minus its length, its id
    for token_id, token in tokenizer.added_tokens_decoder.items():
        place = tail.find(token.content) if token.content.strip() else -1
        if place >= 0 and (first is None or (place, -len(token.content)) < first[:2]):
            first = (place, -len(token.content), token_id)
    if first is not None:
        return tail[: first[0] - first[1]], first[2]
    return tail.rstrip(), None


def written_turn(
    template: ChatTemplate, frame: Frame, prompt: list[dict[str, Any]], answer: list[dict[str, Any]]
) -> WrittenRow:
    """A conversation's text with its last assistant turns as answer, and the headers between these as scaffold.

    Args:
        template: of the tokenizer.
        frame: what it writes around the answer to such a prompt.
        prompt: turns before the answer.
        answer: turns of the assistant.
    """
    opening = template.render(prompt, prompts=True)
    part, shift = _behind(template, opening, prompt, answer)
    before = len(frame.before) if part.startswith(frame.before) else 0
    end = len(part)
    ended = bool(frame.end)
    if part.endswith(frame.end + frame.after):
        end -= len(frame.after)
    else:  # a turn of another kind, one that calls a tool, say: it may end in another special token
        cut, token = _last_token(template.tokenizer, part)
        end, ended = cut, token
    if not ended:
        end = len(part[:end].rstrip()) or end
    start = len(opening) + before
    marked = None
    if len(answer) > 1:
        headers = _headers_between(template, frame, prompt, answer)
        starts = [start, *(last + shift for _, last in headers)]
        marked = list(zip(starts, [*(begin + shift for begin, _ in headers), len(opening) + end], strict=True))
    if template.marks_answers:
        spans = [(begin + shift, last + shift) for begin, last in template.marked([*prompt, *answer])]
        turns = marked or [(len(opening), len(opening) + len(part))]
        both = ((max(a[0], b[0]), min(a[1], b[1])) for a in turns for b in spans)
        marked = [span for span in both if span[0] < span[1]]
    return WrittenRow((opening + part)[: len(opening) + end], start, ended, marked, header=True)


def _behind(
    template: ChatTemplate, opening: str, prompt: list[dict[str, Any]], answer: list[dict[str, Any]]
) -> tuple[str, int]:
    """What follows the generation prompt in a conversation, and how many characters of it the template left out.

    A generation prompt that ends in `<think>` opens a block that some templates write around no answer, or strip from
    one. The model has to close it before it answers: the block is closed at once, or holds the thoughts of the row.

    Raises:
        ValueError: the template begins the turn in another way than its generation prompt.
    """
    whole = template.render([*prompt, *answer])
    if whole.startswith(opening):
        return whole[len(opening) :], 0
    block = _OPENED_BLOCK.search(opening)
    if block is None or not whole.startswith(opening[: block.start()]):
        raise _other_opening(f"{template.where}, which does not")
    rest, close = whole[block.start() :], f"</{block[1]}>"
    if close in rest:  # the row's own thoughts, with another space before them, or without the tag that opens them
        part = rest.removeprefix(f"<{block[1]}>").lstrip()
    else:
        said = answer[0].get("content") or ""
        thought, closed, _ = said.rpartition(close)
        thought = (answer[0].get("reasoning_content") or thought).strip().removeprefix(f"<{block[1]}>").strip()
        part = f"{thought}{block[2]}{close}\n\n{rest.lstrip() if closed else rest}"
    return part, len(opening) + len(part) - len(whole)


def _headers_between(
    template: ChatTemplate, frame: Frame, prompt: list[dict[str, Any]], answer: list[dict[str, Any]]
) -> list[tuple[int, int]]:
    """Characters (from, to) between turns of one answer: behind the end of one, up to the text of the next.

    Where the text of a turn lies shows by the renderings of the conversation with another text in its place.
    """
    whole = template.render([*prompt, *answer])
    texts = []
    for place in range(len(answer)):
        before, after = len(whole), len(whole)
        for probe in _PROBES:
            said = [*answer[:place], {"role": "assistant", "content": probe}, *answer[place + 1 :]]
            other = template.render([*prompt, *said])
            before = min(before, len(_common_start(whole, other)))
            after = min(after, len(_common_start(whole[::-1], other[::-1])))
        texts.append((before, max(before, len(whole) - after)))
    headers = []
    for (_, end), (start, _) in pairwise(texts):
        between = whole[end:start]
        if frame.end and not between.startswith(frame.end):
            own_end = _end_of(template.tokenizer, between)[0]
        else:
            own_end = frame.end
        headers.append((min(end + len(own_end), start), start))
    return headers


def _last_token(tokenizer: PreTrainedTokenizerBase, part: str) -> tuple[int, bool]:
    """Where an answer's text ends without trailing whitespace, and whether a special token stands there."""
    said = part.rstrip()
    contents = (token.content for token in tokenizer.added_tokens_decoder.values())
    return len(said), any(said.endswith(content) for content in contents if content.strip())


def _other_opening(got: str) -> ValueError:
    return input_error(
        expected="a chat template whose generation prompt begins the assistant's turn",
        got=f"{got} begin as its prompt and the generation prompt do",
        why="where the answer starts would be a guess, and the mask would be wrong",
        fix="set tokenizer.chat_template to one that writes both alike, or chat_template_kwargs (enable_thinking, "
        "say), or pass strings and a `template`",
    )
