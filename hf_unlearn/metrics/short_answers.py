"""Short generated answers against texts that count as right: F1 of words and exact match (TriviaQA), conclusions."""

import re
import string
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from .checks import Floats, same_lengths

_MARKS = string.punctuation + "‘’´`"
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NEXT_QUESTION = re.compile(r"\n\s*Q:")
# Up to a full stop that ends a sentence ("3.5" has none) or the end of the line.
_CONCLUSION = re.compile(r"\bthe answer is[\s:*]*(.*?)(?:\.(?=\s|$)|$)", re.IGNORECASE | re.MULTILINE)
_AROUND = " \t\n*\"'`"  # quotes and emphasis
_OPTION = re.compile(r"\(([A-Za-z])\)")
_CHOSEN = re.compile(r"\(?([A-Za-z])(?:\)|$)")


def trivia_words(text: str) -> list[str]:
    """The words of a text as TriviaQA compares them: in small letters, without punctuation and articles.

    Punctuation and underscores are spaces ("Coca-Cola" is two words). Of a text of nothing else ("The The", "?") what
    stands between its blanks.

    Paper: TriviaQA, Joshi et al. 2017, https://arxiv.org/abs/1705.03551.
    """
    small = text.lower()
    bare = "".join(" " if letter in _MARKS else letter for letter in small)
    return _ARTICLES.sub(" ", bare).split() or small.split()


def joined_words(text: str) -> list[str]:
    """The words of a text as SQuAD compares them, RWKU too: ASCII punctuation is left out ("cocacola"), articles too.

    Nothing is left of "(A)" or "? ?".
    """
    bare = "".join(letter for letter in text.lower() if letter not in string.punctuation)
    return _ARTICLES.sub(" ", bare).split()


def answer_f1s(
    answers: Sequence[str],
    accepted: Sequence[Iterable[str]],
    *,
    words: Callable[[str], list[str]] = trivia_words,
) -> Floats:
    """F1 of the words of each answer and of the text that it agrees with most, [N].

    2 P R / (P + R): P the part of the answer's words that the text has, R that of the text's words that the answer
    has, a word that stands k times counted k times. Where one of both has no words: 1 if neither has, else 0.

    Args:
        answers: [N] generated.
        accepted: [N] texts that count as right, one or more each.
        words: of a text, as they are compared.

    Raises:
        ValueError: another number of answers than of lists of accepted texts.
    """
    same_lengths(answers=answers, accepted=accepted)
    return np.array(
        [
            max(_f1(words(answer), words(text)) for text in texts)
            for answer, texts in zip(answers, accepted, strict=True)
        ]
    )


def answer_matches(
    answers: Sequence[str],
    accepted: Sequence[Iterable[str]],
    *,
    words: Callable[[str], list[str]] = trivia_words,
) -> NDArray[np.bool_]:
    """Whether the words of each answer are those of one of its accepted texts, in their order, [N].

    Args and raises: as `answer_f1s`.
    """
    same_lengths(answers=answers, accepted=accepted)
    return np.array(
        [any(words(answer) == words(text) for text in texts) for answer, texts in zip(answers, accepted, strict=True)]
    )


def conclusion(reply: str) -> str | None:
    """What a reply with its reasoning says last that "the answer is"; None where it does not say so.

    What the model writes after a "Q:" of its own is no part of the reply.
    """
    found = _CONCLUSION.findall(_NEXT_QUESTION.split(reply, maxsplit=1)[0])
    return _bare(found[-1]) if found else None


def conclusion_matches(replies: Sequence[str], accepted: Sequence[Iterable[str]]) -> NDArray[np.bool_]:
    """Whether each reply's conclusion is one of its accepted texts, [N].

    Case, blanks, quotes, emphasis and a full stop at the end do not count; every other sign does: "-5" is not "5",
    "] )" is not "] >". Where an option such as "(B)" is right, "B", "B)" and "(B) with its text" are too. A reply
    without "the answer is" is its own conclusion.

    Args:
        replies: [N] generated.
        accepted: [N] texts that count as right, one or more each.

    Raises:
        ValueError: another number of replies than of lists of accepted texts.
    """
    same_lengths(replies=replies, accepted=accepted)
    said = [conclusion(reply) for reply in replies]
    concluded = [_bare(reply) if own is None else own for own, reply in zip(said, replies, strict=True)]
    return np.array([any(_same(own, text) for text in texts) for own, texts in zip(concluded, accepted, strict=True)])


def _f1(answer: Sequence[str], text: Sequence[str]) -> float:
    if not answer or not text:
        return float(answer == text)
    common = sum((Counter(answer) & Counter(text)).values())
    return 2 * common / (len(answer) + len(text))  # what 2 P R / (P + R) comes to


def _bare(text: str) -> str:
    return " ".join(text.strip(_AROUND).rstrip(f".{_AROUND}").split())


def _same(said: str, text: str) -> bool:
    option = _OPTION.fullmatch(text.strip())
    chosen = _CHOSEN.match(said)
    if option is not None and chosen is not None:
        return chosen[1].casefold() == option[1].casefold()
    return said.casefold() == _bare(text).casefold()
