"""Passages of books, as prompts with their continuations or as whole texts."""

import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import datasets

from ..errors import input_error, require_range, value_error
from .checks import check_limit

# A full stop after a short title does not end a sentence. Those of Greek, Armenian, Arabic, Urdu, Hindi and Ethiopic
# stand before a space, too; after those of Chinese, Japanese, Khmer and Burmese there is none.
_SENTENCE_END = re.compile(
    r"(?:(?<!\bMr)(?<!\bDr)(?<!\bSt)(?<!\bMs)(?<!\bMrs)\.|[!?…\u037e։؟۔।॥።፧])[.!?…։؟۔।॥]*[\"'”’»)\]]*(?=\s)|[。！？។။]+[」』”’]*"
)
_PARAGRAPH_BREAK = "\n\n"
_NEAR = 0.25  # a paragraph that ends this near to the length asked for, as a share of it, ends its passage


def book_rows(
    text_or_path: str | Path,
    *,
    prompt_characters: int = 200,
    passage_characters: int = 600,
    limit: int | None = None,
) -> datasets.Dataset:
    """The passages of a book as columns `prompt` and `completion`: the start of each, and how it goes on.

    prompt: the passage's first `prompt_characters`, cut back to the end of a word (not where there are no spaces).
    completion: the rest, with the space it starts with, so that prompt + completion is the passage, character by
    character.

    Passages: the book in order, whole sentences, each passage ending with a paragraph within a quarter of
    `passage_characters`, or else at the sentence end that comes closest, so between half and one and a half times as
    long; a sentence that is longer is cut between words. A last piece that is too short stays with the passage before
    it: no word of the book is lost. Paragraphs end at an empty line; line breaks inside of them belong to the edition,
    and become spaces.

    Args:
        text_or_path: a UTF-8 .txt file as a Path, or as a string without line breaks that ends in ".txt"; any other
            string is the text itself.
        prompt_characters: longest prompt; at most half a passage.
        passage_characters: length of a passage, about.
        limit: at most this many passages, evenly spread over the book.

    Raises:
        ValueError: no such file, not UTF-8, a text shorter than half a passage, or lengths that do not fit.

    Recipe: Gundavarapu et al. 2405.15152 (prompt: the first 200 characters; answer: the rest).
    """
    return _rows(_book_passages(text_or_path, passage_characters), prompt_characters, passage_characters, limit)


def text_rows(
    text_or_path: str | Path, *, passage_characters: int = 600, limit: int | None = None
) -> datasets.Dataset:
    """The same passages whole, as a column `text`, for a model to learn a book from. Arguments as `book_rows`."""
    return _rows(_book_passages(text_or_path, passage_characters), None, passage_characters, limit)


def books_in(
    folder: str | Path,
    *,
    prompt_characters: int | None = 200,
    passage_characters: int = 600,
    limit: int | None = None,
) -> datasets.Dataset:
    """The rows of every .txt file of a folder, book after book in the order of their names.

    Args:
        folder: looked at itself, not what is below it.
        prompt_characters: as `book_rows`; None gives the rows of `text_rows`.
        passage_characters: as `book_rows`.
        limit: at most this many rows, the same share of every book; what a short book cannot give, longer ones do.

    Raises:
        ValueError: no such folder, no .txt file in it, a limit below a row a book, or a book that `book_rows` refuses.
    """
    folder = Path(folder).expanduser()
    inside = list(folder.iterdir()) if folder.is_dir() else []
    files = [path for path in inside if path.suffix.lower() == ".txt" and path.is_file()]
    if not files:
        raise input_error(
            expected="a folder with books as .txt files",
            got=f"{str(folder)!r}, " + ("without any" if folder.is_dir() else "where there is no folder"),
            why="there are no rows to load",
            fix="check the path; for one book use book_rows",
        )
    books = [_book_passages(path, passage_characters) for path in sorted(files, key=lambda path: path.name)]
    check_limit(limit, at_least=len(books), hint="a row of every book is taken")
    shares = _even_shares([len(book) for book in books], limit)
    chosen = [passage for book, share in zip(books, shares, strict=True) for passage in _spread(book, share)]
    return _rows(chosen, prompt_characters, passage_characters, None)


def _rows(
    passages: list[str], prompt_characters: int | None, passage_characters: int, limit: int | None
) -> datasets.Dataset:
    check_limit(limit)
    if limit is not None:
        passages = _spread(passages, min(limit, len(passages)))
    if prompt_characters is None:
        return datasets.Dataset.from_dict({"text": passages})
    if not 1 <= prompt_characters <= passage_characters // 2:
        expected = f"from 1 to {passage_characters // 2}, half of passage_characters"
        hint = f"pass passage_characters={2 * max(1, prompt_characters)} or more, or a shorter prompt"
        raise value_error("prompt_characters", expected, prompt_characters, hint)
    ends = [_word_end(passage, prompt_characters) for passage in passages]
    return datasets.Dataset.from_dict(
        {
            "prompt": [passage[:end] for passage, end in zip(passages, ends, strict=True)],
            "completion": [passage[end:] for passage, end in zip(passages, ends, strict=True)],
        }
    )


def _book_passages(text_or_path: str | Path, passage_characters: int) -> list[str]:
    require_range("passage_characters", passage_characters, at_least=2, whole=True)  # a prompt and an answer
    is_path = isinstance(text_or_path, Path) or ("\n" not in text_or_path and text_or_path.lower().endswith(".txt"))
    name = f"{str(text_or_path)!r}" if is_path else "a text"
    text = _read(Path(text_or_path).expanduser()) if is_path else str(text_or_path)
    passages = _passages(text, passage_characters)
    if not passages or len(passages[0]) <= passage_characters // 2:
        raise input_error(
            expected=f"a text of more than {passage_characters // 2} characters, half a passage",
            got=f"{name} of {len(passages[0]) if passages else 0} characters",
            why="a prompt and a continuation of it are made from each passage",
            fix="pass a longer text or a smaller passage_characters; a path as a string must end in .txt",
        )
    return passages


def _read(path: Path) -> str:
    if not path.is_file():
        raise input_error(
            expected="a text file",
            got=f"{str(path)!r}, where there is no file",
            why="there are no rows to load",
            fix=f"check the path; looked for {path.absolute()}",
        )
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        # Not chained: the error holds the text it stumbles over.
        raise input_error(
            expected=f"{path.name} in UTF-8",
            got=f"a byte at {error.start} that is not",
            why="characters read wrongly would be learnt or forgotten as they are",
            fix="convert it, e.g. iconv -f latin1 -t utf-8",
        ) from None


def _passages(text: str, passage_characters: int) -> list[str]:
    """A text as passages that end with a paragraph near `passage_characters`, or else at the closest sentence end."""
    passages: list[tuple[str, str]] = []  # (what stands before a passage in its book, the passage)
    before, current = "", ""
    # Room for the break between two pieces: then every passage but the last is longer than half its length.
    for between, piece in _pieces(text, max(1, passage_characters - len(_PARAGRAPH_BREAK))):
        longer = current + between + piece
        off = abs(len(current) - passage_characters)
        paragraph_ends = between == _PARAGRAPH_BREAK and off <= _NEAR * passage_characters
        if not current:
            before, current = between, piece
        elif not paragraph_ends and abs(len(longer) - passage_characters) <= off:
            current = longer
        else:
            passages.append((before, current))
            before, current = between, piece
    if passages and len(current) <= passage_characters // 2:
        earlier, passage = passages.pop()
        before, current = earlier, passage + before + current
    return [passage for _, passage in [*passages, (before, current)]]


def _pieces(text: str, longest: int) -> Iterator[tuple[str, str]]:
    """The sentences of a text, or parts of one that is too long, each with what stands before it."""
    for paragraph in re.split(r"\n\s*\n", text):
        words = " ".join(paragraph.split())
        between, start = _PARAGRAPH_BREAK, 0
        for end in [*(match.end() for match in _SENTENCE_END.finditer(words)), len(words)]:
            rest = words[start:end].lstrip()
            start = end
            while rest:
                cut = _word_end(rest, longest) if len(rest) > longest else len(rest)
                yield between, rest[:cut]
                # What follows is looked at in place: a copy of the rest a sentence is quadratic in a paragraph.
                spaced = rest.startswith(" ", cut) if cut < len(rest) else words.startswith(" ", end)
                between = " " if spaced else ""
                rest = rest[cut:].lstrip()


def _word_end(text: str, longest: int) -> int:
    """The end of the last whole word in the first `longest` characters of a longer text; there where no word ends.

    A character is never parted from its vowel signs.
    """
    ends = [match.end() for match in re.finditer(r"\S(?=\s)", text[: longest + 1])]
    if ends:
        return ends[-1]
    end = longest
    while end > 1 and unicodedata.category(text[end]).startswith("M"):
        end -= 1
    return end


def _even_shares(sizes: list[int], limit: int | None) -> list[int]:
    """How many rows each book gives: as alike as their sizes allow, `limit` in sum."""
    if limit is None:
        return sizes
    shares, left = [0] * len(sizes), min(limit, sum(sizes))
    # The shortest first: what it lacks is shared by those after it.
    for done, number in enumerate(sorted(range(len(sizes)), key=lambda i: sizes[i])):
        shares[number] = min(sizes[number], left // (len(sizes) - done))
        left -= shares[number]
    return shares


def _spread(passages: list[str], count: int) -> list[str]:
    return [passages[number * len(passages) // count] for number in range(count)]
