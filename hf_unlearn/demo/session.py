"""What happens on the page: prompts asked of all columns, texts scored, votes cast. Without the page itself."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from ..evaluation.decoding import Decoding
from .answers import ModelThread, read_prompt
from .blind import LETTERS, Found, TallyFile, Vote, drawn_order, tally
from .columns import Column
from .tokens import Token


@dataclass(frozen=True)
class Shown:
    """A column as it stands on the page.

    Attributes:
        title: name of the model, or a letter while that is hidden.
        note: below it.
        tokens: of the answer so far.
        state: "waiting", "answering" or "done".
    """

    title: str
    note: str = ""
    tokens: tuple[Token, ...] = ()
    state: str = "waiting"


@dataclass(frozen=True)
class Board:
    """The columns of a person's page, and which models they are.

    Attributes:
        columns: as shown, from left to right.
        names: of their models.
        hidden: whether the person is not told yet.
        read: the prompt as the models read it, once where all read the same.
    """

    columns: tuple[Shown, ...] = ()
    names: tuple[str, ...] = ()
    hidden: bool = False
    read: tuple[str, ...] = ()

    def answer_of(self, name: str) -> str:
        """The text of a model's answer, without what ends it; "" where there is no such column.

        A column under a letter has none to a person who asks by the model's name, before the vote.
        """
        texts = ["".join(token.text for token in one.tokens if not token.end) for one in self.columns]
        named = () if self.hidden else zip(self.names, texts, strict=True)
        return dict(named).get(name, "")


class Session:
    """The models of the page and what they are asked.

    Args:
        columns: at least one.
        thread: on which they work.
        tally_file: where votes are kept; None keeps none.
        source: of the order of columns without names.
    """

    def __init__(
        self,
        columns: Sequence[Column],
        thread: ModelThread,
        tally_file: TallyFile | None = None,
        source: random.Random | None = None,
    ) -> None:
        self.columns, self.tally_file = list(columns), tally_file
        self._thread, self._source = thread, source or random.SystemRandom()

    @property
    def names(self) -> list[str]:
        """Of the models."""
        return [column.name for column in self.columns]

    def ask(self, prompt: str, decoding: Decoding, *, hidden: bool = False, plain: bool = False) -> Iterator[Board]:
        """The page after every token: the columns answer one after the other, from left to right.

        Args:
            prompt: as a person wrote it.
            decoding: of all columns.
            hidden: the columns stand in a drawn order, under letters.
            plain: the prompt is read as it is, without the template of the run's rows.

        Raises:
            ValueError: a prompt that is too long for a row of the run.
        """
        order = drawn_order(len(self.columns), self._source) if hidden else list(range(len(self.columns)))
        columns = [_read_plainly(self.columns[place], plain) for place in order]
        shown = [_shown(column, place, hidden) for place, column in enumerate(columns)]
        read = tuple(dict.fromkeys(read_prompt(column, prompt) for column in columns))
        board = Board(names=tuple(column.name for column in columns), hidden=hidden, read=read)
        for place, column in enumerate(columns):
            tokens: list[Token] = []
            shown[place] = replace(shown[place], state="answering")
            yield replace(board, columns=tuple(shown))
            for token in self._thread.answer(column, prompt, decoding):
                tokens.append(token)
                shown[place] = replace(shown[place], tokens=tuple(tokens))
                yield replace(board, columns=tuple(shown))
            shown[place] = replace(shown[place], state="done")
            yield replace(board, columns=tuple(shown))

    def score(self, prompt: str, answer: str, *, plain: bool = False) -> Board:
        """How likely every model finds a given answer, token by token.

        Args:
            prompt: as a person wrote it; "" for a text that follows none.
            answer: the text.
            plain: as of `ask`.

        Raises:
            ValueError: no answer, or a row that is too long for the run.
        """
        scored = [self._thread.score(_read_plainly(column, plain), prompt, answer) for column in self.columns]
        shown = [
            replace(_shown(column, place, False), tokens=tuple(tokens), state="done")
            for place, (column, tokens) in enumerate(zip(self.columns, scored, strict=True))
        ]
        return Board(tuple(shown), tuple(self.names))

    def vote(self, board: Board, sought: str, letter: str) -> tuple[Board, Vote]:
        """Count a vote on a board, and show which column is which.

        Args:
            board: whose models are hidden.
            sought: name of the model that was to be found.
            letter: of the column that was taken for it.
        """
        vote = Vote(sought, board.names[LETTERS.index(letter)], len(board.names))
        if self.tally_file is not None:
            self.tally_file.add(vote)
        notes = {column.name: column.note for column in self.columns}
        told = zip(board.columns, board.names, strict=True)
        columns = tuple(
            replace(column, title=f"{column.title}: {name}", note=notes.get(name, "")) for column, name in told
        )
        return replace(board, columns=columns, hidden=False), vote

    def tally(self, votes: Sequence[Vote]) -> list[Found]:
        """The votes so far: a person's own, or those of the file where one is kept."""
        return tally(votes if self.tally_file is None else self.tally_file.votes)


def _shown(column: Column, place: int, hidden: bool) -> Shown:
    return Shown(LETTERS[place]) if hidden else Shown(column.name, column.note)


def _read_plainly(column: Column, plain: bool) -> Column:
    if not plain:
        return column
    return replace(column, options=replace(column.options, template="{prompt}{completion}"))
