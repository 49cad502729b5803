"""The task copyright: a model is fitted to a book, unless it knows it already, and then forgets its passages."""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from datasets import Dataset

from ..data.books import book_rows, books_in
from ..data.provenance import from_lab
from ..errors import input_error
from ..evaluation import copyright
from ..lab import load_lab
from .arguments import Parsed
from .fit_first import FitArguments, described, fit, require_trainable
from .task import NAMED_ORACLE, RETRAINED, Task, measured_rows, require_unused

DEFAULT_RECIPE = "copyright_lab"


@dataclass
class Arguments(FitArguments):
    """The book to forget and the books to keep. Without --book they are the lab's."""

    book: str | None = field(default=None, metadata={"help": "Book to forget, a .txt file; none: the lab's."})
    retain_dir: str | None = field(default=None, metadata={"help": "Folder of .txt files: the books to keep."})
    holdout_book: str | None = field(
        default=None, metadata={"help": "A .txt file like the book that no model has seen, for membership attacks."}
    )
    prompt_characters: int = field(default=200, metadata={"help": "Characters of a passage that the model is given."})
    passage_characters: int = field(default=600, metadata={"help": "Characters of a passage, about."})


@dataclass
class Books:
    """Where the texts, the model to start from and one that has not read the book are."""

    model: str
    book: Path
    retain_dir: Path
    holdout: Path | None
    oracle: str | None
    from_lab: bool


def _books_of(script: Arguments, model: str | None) -> Books:
    """The lab's, or those that the arguments name."""
    if script.book is None:
        own = {"retain_dir": script.retain_dir, "holdout_book": script.holdout_book, "oracle": script.oracle}
        require_unused("book", model_name_or_path=None if script.continue_from else model, **own)
        lab = load_lab(world="books")
        start = lab.oracle_path if script.fit else lab.model_path
        return Books(str(start), lab.book_path, lab.retain_dir, lab.holdout_path, str(lab.oracle_path), True)
    if model is None or script.retain_dir is None:
        raise input_error(
            expected="--model_name_or_path and --retain_dir together with --book",
            got="no model" if model is None else "no folder of books to keep",
            why="the lab's model and books have nothing to do with yours",
            fix="add them, or leave out --book to run on the lab",
        )
    holdout = None if script.holdout_book is None else Path(script.holdout_book)
    oracle = script.oracle or (model if script.fit else None)
    return Books(model, Path(script.book), Path(script.retain_dir), holdout, oracle, False)


def _passages(script: Arguments, books: Books) -> dict[str, Dataset]:
    """Rows of the book, of the books to keep and of unseen text: the start of a passage and how it goes on."""
    cut: dict[str, Any] = {
        "prompt_characters": script.prompt_characters,
        "passage_characters": script.passage_characters,
        "limit": script.limit,
    }
    sets = {"forget": book_rows(books.book, **cut), "retain": books_in(books.retain_dir, **cut)}
    if books.holdout is not None:
        sets["holdout"] = book_rows(books.holdout, **cut)
    return {name: from_lab(rows, "books") for name, rows in sets.items()} if books.from_lab else sets


def make_task(parsed: Parsed) -> Task:
    """The fitted model, its passages, and the suite that measures the first of each set."""
    script, args, revision = parsed.script, parsed.args, parsed.model.model_revision
    # A passage is prose, to a chat model too: no template of its tokenizer may come between a start and its rest.
    args.template = args.template or "{prompt}{completion}"
    with args.main_process_first(local=True, desc="loading data"):
        books = _books_of(script, parsed.model.model_name_or_path)
        sets = _passages(script, books)
    require_trainable(books.model, revision, args, sets)
    learnt = [sets[name] for name in (("forget", "retain") if script.fit_on_retain else ("forget",))]
    model = books.model
    if script.fit:
        model = fit("fitted", script, args, books.model, learnt, revision, whole_text=True)
    suite = partial(
        copyright,
        **{
            name: measured_rows(rows, script.evaluated_half, script.evaluated_rows)
            for name, rows in sets.items()
            if name != "holdout"
        },
        max_new_tokens=script.max_new_tokens,
        max_length=args.max_length,
        template=args.template,
    )
    unread = ("the lab's model that has not read the book", "lab") if books.from_lab else described(books.model)
    before_fit = script.fit and books.oracle == books.model
    retrained = RETRAINED if books.from_lab else NAMED_ORACLE
    return Task(
        model,
        sets,
        suite,
        books.oracle,
        "the model before it was fitted to the book" if before_fit else retrained,
        from_lab=books.from_lab and not script.fit,
        fitted_from=unread[0] if script.fit else None,
        fitted_origin=unread[1] if script.fit else None,
        checkpoint=books.model if script.fit else None,
    )
