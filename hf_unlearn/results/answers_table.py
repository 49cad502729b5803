"""The answers of a verdict as text for a terminal: three questions, a word and a figure each."""

from collections.abc import Sequence

from .terminal import terminal_table
from .verdict import Answer


def answers_table(answers: Sequence[Answer], title: str | None = None) -> str:
    """The answers, a line each; their details and the whole sentence are on the page and in JSON.

    Args:
        answers: of a run's verdict.
        title: a line above, where there are several runs.
    """
    rows = [[answer.question, answer.word, answer.figure] for answer in answers]
    return terminal_table(["verdict", "answer", "by"], rows, title=title)
