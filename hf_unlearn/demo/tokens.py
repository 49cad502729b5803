"""Tokens of an answer with how likely a model finds them, and the pieces of text that tokens are."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Token:
    """A token of an answer.

    Attributes:
        text: what it adds to the text; "" for one that only begins a character.
        logp: log-prob that the model gives it after all that is before it, nats; None where none was asked for.
        end: whether it ends the answer.
    """

    text: str
    logp: float | None
    end: bool = False


class TextPieces:
    """The text that each further token adds, so that the pieces joined are the text of all tokens.

    Args:
        tokenizer: of the tokens.
        before: tokens that the first piece follows.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, before: Sequence[int] = ()) -> None:
        self._tokenizer, self._ids = tokenizer, list(before)
        self._shown = tokenizer.decode(self._ids) if self._ids else ""

    def add(self, token_id: int) -> str:
        """What a token adds; "" while a character is not whole."""
        self._ids.append(token_id)
        text = self._tokenizer.decode(self._ids)
        if text.endswith("\ufffd"):  # bytes of a character, the rest of which is still to come
            return ""
        piece = text[len(self._shown) :] if text.startswith(self._shown) else self._tokenizer.decode([token_id])
        self._shown = text
        return piece


@dataclass(frozen=True)
class Likelihood:
    """How likely a model finds an answer.

    Attributes:
        tokens: that have a log-prob, the end included.
        nats: mean negative log-prob of a token.
    """

    tokens: int
    nats: float

    @property
    def probability(self) -> float:
        """Geometric mean of the tokens' probabilities."""
        return math.exp(-self.nats)


def likelihood_of(tokens: Sequence[Token]) -> Likelihood | None:
    """Of the tokens that have a log-prob; None where none has."""
    logps = [token.logp for token in tokens if token.logp is not None]
    return Likelihood(len(logps), -sum(logps) / len(logps)) if logps else None
