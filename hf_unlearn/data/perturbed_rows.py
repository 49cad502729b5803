"""Stand-ins for rows that a model never saw: rows whose names and numbers are exchanged for those of other rows."""

import hashlib
import hmac
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from datasets import Dataset

from ..errors import input_error
from .text_digests import row_texts, text_digest

# Columns that hold what a row says, in the order in which it says it. The first group that a set has is taken.
_FORMATS = (("prompt", "completion"), ("messages",), ("question", "answer"), ("text",))
# A word without its possessive s, or a number.
_WORD = re.compile(r"[^\W\d_]+(?:(?:['’](?!s\b)|-)[^\W\d_]+)*|\d+")
_SENTENCE_END = re.compile(r"[.!?:;\n\"“”«»()\[\]]")
_TRIES = 8  # other draws for a row that came out as one that there is


def perturbed_rows(rows: Dataset, *, seed: int, known: Collection[str] = (), salt: bytes = b"", count: int) -> Dataset:
    """Rows of the same form whose facts were never seen, made from rows that were.

    Names (capitalised words that open no sentence, and wherever else in the row they stand) and numbers are exchanged
    for those of other rows, the same one everywhere in a row, in prompt and answer alike. A row without any, as one in
    a script without capitals or all in small letters, gets another row's answer, or a text its second half. What is
    drawn follows from seed and row alone, not from the row's place.

    Args:
        rows: prompt and completion, question and answer, messages or text.
        seed: of what is drawn.
        known: digests (`text_digest` with `salt`) of rows that none may come out as, beside `rows` themselves.
        salt: of those digests.
        count: rows to make, at most.

    Returns:
        the rows, with the columns that say something alone.

    Raises:
        ValueError: rows of token ids or of preferences, or none that could be made otherwise than it was.
    """
    columns = _columns(rows)
    given = [dict(row) for row in rows.with_format(None).select_columns(columns)]
    digests = {text_digest(row, salt) for row in given} | set(known)
    common = _common_words(given)
    pools, key = _pools(given, common), b"perturbed %d" % seed
    chosen = sorted({text_digest(row, key): row for row in given}.items())  # a draw of the rows, each once
    answers = [row for _, row in chosen]
    made: dict[str, dict[str, Any]] = {}
    for digest, row in chosen:
        for attempt in range(_TRIES):
            drawn = f"{digest} {attempt}".encode()
            kinds = _names(_texts(row), common) | _numbers(_texts(row))
            other = _exchanged(row, kinds, pools, drawn) or _answer_of_another(row, answers, columns, drawn)
            own = text_digest(other, salt)
            if own not in digests and own not in made:
                made[own] = other
                break
        if len(made) == count:
            break
    if not made:
        raise input_error(
            expected="rows with names, numbers or answers that can be exchanged for those of other rows",
            got=f"{len(given)} rows of which none came out otherwise than one that there is",
            why="stand-ins for unseen rows must not be rows that the model knows",
            fix="pass more rows to keep, or unseen rows of your own with --holdout_dataset",
        )
    return Dataset.from_list(list(made.values()), features=rows.select_columns(columns).features)


def _columns(rows: Dataset) -> list[str]:
    for names in _FORMATS:
        if set(names) <= set(rows.column_names):
            return list(names)
    raise input_error(
        expected="rows to keep as prompt and completion, messages or text, to make stand-ins for unseen rows from",
        got=f"columns {', '.join(sorted(rows.column_names))}",
        why="names and numbers are exchanged in text",
        fix="pass unseen rows of your own with --holdout_dataset",
    )


def _texts(row: Mapping[str, Any]) -> list[str]:
    return [text for text in row_texts(row) if text]


def _names(texts: Iterable[str], common: Collection[str]) -> dict[str, str]:
    """Names in a row, each with its kind: whether it follows a name, and whether it stands in the first text."""
    kinds: dict[str, str] = {}
    for place, text in enumerate(texts):
        end, before = 0, None
        for word, start, opens in _words(text):
            follows = before is not None and text[end:start].isspace()
            if not opens and _capitalised(word) and word.lower() not in common:
                kinds.setdefault(word, f"{'later' if follows else 'first'}, {'asked' if place == 0 else 'told'}")
            before, end = word if word in kinds else None, start + len(word)
    return kinds


def _words(text: str) -> Iterator[tuple[str, int, bool]]:
    """Words and numbers of a text, where each begins, and whether it opens a sentence."""
    end = 0
    for match in _WORD.finditer(text):
        yield match.group(), match.start(), end == 0 or _SENTENCE_END.search(text[end : match.start()]) is not None
        end = match.end()


def _capitalised(word: str) -> bool:
    return word[0].isupper() and len(word) > 1 and not word.startswith(("I'", "I’"))


def _common_words(rows: Iterable[Mapping[str, Any]]) -> set[str]:
    """Words that are no names although they are capitalised here and there: small letters are more frequent."""
    small: Counter[str] = Counter()
    large: Counter[str] = Counter()
    for row in rows:
        for text in _texts(row):
            for word, _, opens in _words(text):
                if not opens:
                    (large if word[0].isupper() else small)[word.lower()] += 1
    return {word for word, times in small.items() if times > large[word]}


def _numbers(texts: Iterable[str]) -> dict[str, str]:
    """Numbers in a row, each with its kind: how many digits it has."""
    numbers = {word for text in texts for word, _, _ in _words(text) if word.isdecimal()}
    return {number: f"{len(number)} digits" for number in numbers}


def _pools(rows: Iterable[Mapping[str, Any]], common: Collection[str]) -> dict[str, list[str]]:
    """What there is to exchange for, by kind, sorted."""
    pools: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        for word, kind in (_names(_texts(row), common) | _numbers(_texts(row))).items():
            pools[kind].add(word)
    return {kind: sorted(words) for kind, words in pools.items()}


def _exchanged(
    row: Mapping[str, Any], kinds: Mapping[str, str], pools: Mapping[str, Sequence[str]], key: bytes
) -> dict[str, Any] | None:
    """The row with its names and numbers exchanged; None where there is nothing to exchange."""
    exchanged = {word: _other(word, pools[kind], key) for word, kind in kinds.items()}
    if all(word == other for word, other in exchanged.items()):
        return None

    def exchange(text: str) -> str:
        return _WORD.sub(lambda match: exchanged.get(match.group(), match.group()), text)

    return {name: _mapped(value, exchange) for name, value in row.items()}


def _other(word: str, pool: Sequence[str], key: bytes) -> str:
    """A word of the pool that is another one, drawn by key and word; another number where the pool has none."""
    place = _draw(key, word) % len(pool)
    other = pool[place] if pool[place] != word else pool[(place + 1) % len(pool)]
    if other == word and word.isdecimal():
        return str(int(word[0]) % 9 + 1) + word[1:]
    return other


def _answer_of_another(
    row: Mapping[str, Any], answers: Sequence[Mapping[str, Any]], columns: Sequence[str], key: bytes
) -> dict[str, Any]:
    other = answers[_draw(key, "answer") % len(answers)]
    if columns[0] == "text":
        own, others = row["text"], other["text"]
        return {"text": own[: len(own) // 2] + others[len(others) // 2 :]}
    if columns[0] == "messages":
        return {"messages": [*row["messages"][:-1], other["messages"][-1]]}
    return {columns[0]: row[columns[0]], columns[1]: other[columns[1]]}


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    """A text, or the contents of messages, changed."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {name: change(part) if name == "content" and part else part for name, part in value.items()}
    return [_mapped(part, change) for part in value]


def _draw(key: bytes, word: str) -> int:
    return int.from_bytes(hmac.new(key, word.encode(), hashlib.sha256).digest()[:8], "big")
