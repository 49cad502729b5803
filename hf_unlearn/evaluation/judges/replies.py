"""What a language model replied to a judge's question, and what such a model is to a judge."""

import abc
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple


class Reply(NamedTuple):
    """The reply to one question.

    Attributes:
        share: probability of the first label among both; 0 or 1 where only its word was read; None without a reply.
        error: why there is none, in two or three words; "" where there is one.
        by_likelihood: whether `share` is a likelihood, rather than read from the words of a reply.
    """

    share: float | None
    error: str = ""
    by_likelihood: bool = True


class ReplySource(abc.ABC):
    """A language model that can be asked for one of two labels: local, or behind an endpoint."""

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """Model, version and place; two sources of one name reply alike."""

    @abc.abstractmethod
    def replies(self, questions: Sequence[str], labels: tuple[str, str]) -> tuple[list[Reply], Mapping[str, Any]]:
        """A reply to each question, in their order, and what is known of the asking (for a result's `run`)."""

    @abc.abstractmethod
    def record(self) -> dict[str, Any]:
        """Model, version and place by name, for a result's `run`."""
