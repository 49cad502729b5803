"""The first rows of a set as they are trained, for the user's own terminal: prompt, answer, end of turn. No file."""

import os
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, NoReturn, TextIO

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from ..data.prepare import RowOptions
from ..data.tokenization import row_encoder
from ..data.tokenized_row import IGNORED_LABEL, target_count, trained_ids
from ..data.turns import AnswerEnds
from ..errors import input_error
from ..evaluation.stop_rule import StopRule
from .arguments import Parsed
from .task import Task

# Part of a row -> its colour on a terminal (SGR) and what the legend says of it.
PARTS = {
    "prompt": ("2", "read, not trained"),
    "answer": ("1;32", "trained: what the losses of this set act on"),
    "between": ("33", "stands in the answer and is not trained"),
    "end": ("1;35", "trained: ends the answer, and generation stops here"),
}
_LONGEST = 1500  # characters of a part; of a longer one, the beginning and the end are shown


@dataclass(frozen=True)
class ShownRow:
    """A row as it is trained.

    Attributes:
        parts: (name of `PARTS`, text), in the row's order.
        tokens: of the row after the cut.
        trained: tokens that a loss is computed of.
        cut: tokens beyond `max_length`, and how many of them were answer.
        bos: how often the row has the bos token at its start; None for a tokenizer without one.
    """

    parts: list[tuple[str, str]]
    tokens: int
    trained: int
    cut: tuple[int, int]
    bos: int | None


@dataclass(frozen=True)
class ShownSet:
    """The first rows of a set, and what holds of all of them.

    Attributes:
        name: of the set.
        rows: as they are trained.
        written_by: what makes text of the rows.
        ends: what ends an answer.
    """

    name: str
    rows: list[ShownRow]
    written_by: str
    ends: list[str]


def show_set(rows: Any, options: RowOptions, name: str, limit: int) -> ShownSet:
    """Encode the first rows of a set as the trainer does, and take them apart.

    Args:
        rows: in any accepted format.
        options: how rows become tokens, as in training.
        name: "forget", "retain", "holdout" or "eval".
        limit: at most so many rows.

    Raises:
        ValueError: no rows, or rows that cannot be tokenised.
    """
    first = list(islice(rows, limit))
    tokenizer = options.tokenizer
    if not first or tokenizer is None:
        raise input_error(
            expected=f"at least one row in the {name} set, and a tokenizer",
            got="no rows" if not first else "no tokenizer",
            why="there is nothing to show",
            fix="check the file, its split and the limit",
        )
    encoder = row_encoder(
        first[0],
        dict(
            tokenizer=tokenizer,
            set_name=name,
            max_length=options.max_length,
            template=options.template,
            chat_template_kwargs=options.chat_template_kwargs,
            alternates=False,
            labels_from=options.labels_from,
        ),
    )
    columns = {column: [row.get(column) for row in first] for column in first[0]}
    encoded = encoder(columns, range(len(first))).to_pylist()
    ends = options.answer_ends(first, encoded) | AnswerEnds((tokenizer.eos_token_id,))
    stop = StopRule(tokenizer, ends)
    written_by = "template" if options.template and not encoder.conversational else "no template: texts are joined"
    used = {
        tokenizer.convert_ids_to_tokens(token) for row in encoded for token in row["labels"] if token in ends.tokens
    }
    return ShownSet(
        name,
        [_shown(row, stop) for row in encoded],
        "the tokenizer's chat template" if encoder.uses_chat_template else written_by,
        [*sorted(used), *ends.texts],
    )


def _shown(row: Mapping[str, Any], stop: StopRule) -> ShownRow:
    ids, labels, start = row["input_ids"], row["labels"], row["answer_start"]
    trained = trained_ids(labels)
    end_tokens = len(trained) - len(stop.strip(trained))
    kinds = [
        "prompt" if i < start else "between" if label == IGNORED_LABEL else "answer" for i, label in enumerate(labels)
    ]
    for place in [i for i, kind in enumerate(kinds) if kind == "answer"][len(trained) - end_tokens :]:
        kinds[place] = "end"
    parts: list[tuple[str, str]] = []
    begin, shown = 0, ""
    for place in range(1, len(ids) + 1):
        if place == len(ids) or kinds[place] != kinds[begin]:
            # Of the whole text, as a token alone may lose the space in front of it.
            text = stop.tokenizer.decode(ids[:place])
            parts.append((kinds[begin], text[len(shown) :]))
            begin, shown = place, text
    bos = stop.tokenizer.bos_token_id
    at_start = None if bos is None else next((i for i, token in enumerate(ids) if token != bos), len(ids))
    cut = (row["full_length"] - len(ids), row["targets"] - row["kept_targets"])
    return ShownRow(parts, len(ids), target_count(labels), cut, at_start)


def render_set(shown: ShownSet, options: RowOptions, *, colour: bool) -> str:
    """A set as text for a terminal, with a legend: names of the parts in front, colours where they are wanted."""
    rows, length = shown.rows, options.max_length
    cut = sum(row.cut[0] > 0 for row in rows)
    lines = [_painted(f"{shown.name} set, first {len(rows)} rows", "1", colour)]
    lines += [f"  {_painted(name.ljust(7), code, colour)} {meaning}" for name, (code, meaning) in PARTS.items()]
    lines += [
        f"Text is made by {shown.written_by}.",
        f"An answer ends at {' or '.join(map(repr, shown.ends)) or 'no token of these rows: all of them are cut'}.",
        _bos(rows, options.tokenizer),
        f"{sum(row.tokens for row in rows)} tokens, {sum(row.trained for row in rows)} of them trained"
        + ("; no limit of length." if length is None else f"; {cut} of {len(rows)} rows cut to max_length={length}."),
    ]
    for place, row in enumerate(rows):
        lost = f"; {row.cut[0]} tokens cut off, {row.cut[1]} of them answer" if row.cut[0] else ""
        lines += ["", _painted(f"row {place}: {row.tokens} tokens, {row.trained} trained{lost}", "1", colour)]
        for name, text in row.parts:
            code, _ = PARTS[name]
            for i, line in enumerate(_visible(text)):
                lines.append(f"  {('' if i else name).ljust(7)}| {_painted(line, code, colour)}")
    return "\n".join(lines)


def _bos(rows: Sequence[ShownRow], tokenizer: PreTrainedTokenizerBase | None) -> str:
    assert tokenizer is not None
    counts = {row.bos for row in rows}
    if counts == {None}:
        return "The tokenizer has no token that begins a text (bos)."
    written = {0: "not written", 1: "once"}
    times = " or ".join(written.get(n or 0, f"{n} times") for n in sorted(n or 0 for n in counts))
    return f"Token that begins a text (bos) {tokenizer.bos_token!r}: {times}."


def _visible(text: str) -> list[str]:
    """Lines with their ends marked; control characters as escapes, or a row could write on the terminal."""
    if len(text) > _LONGEST:
        left_out = len(text) - _LONGEST
        text = f"{text[: _LONGEST // 2]} [... {left_out} characters ...] {text[-_LONGEST // 2 :]}"
    lines = text.split("\n")
    marked = [f"{line}\\n" for line in lines[:-1]] + lines[-1:]
    plain = ["".join(ascii(c)[1:-1] if unicodedata.category(c)[0] == "C" else c for c in line) for line in marked]
    return plain[:-1] if len(plain) > 1 and not plain[-1] else plain


def _painted(text: str, code: str, colour: bool) -> str:
    return f"\x1b[{code}m{text}\x1b[0m" if colour and text else text


def wants_colour(out: TextIO) -> bool:
    """Whether a stream is a terminal whose user has not asked for plain text (no-color.org)."""
    return out.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def print_text(text: str, out: TextIO) -> None:
    """Print on a terminal of any encoding."""
    encoding = out.encoding or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding), file=out)


def show_task(task: Task, parsed: Parsed, out: TextIO) -> NoReturn:
    """Print the first rows of every training set of a run as it would train them, on its main process; then end."""
    args, limit = parsed.args, parsed.script.show_rows
    if args.process_index:
        sys.exit()
    tokenizer = AutoTokenizer.from_pretrained(task.model, revision=parsed.model.model_revision)
    options = RowOptions(tokenizer, args.max_length, args.template, None, chat_template_kwargs=args.template_variables)
    for name, rows in task.sets.items():
        print_text(render_set(show_set(rows, options, name, limit), options, colour=wants_colour(out)) + "\n", out)
    sys.exit()
