"""Encodes a batch of rows: token ids, and labels that mask the prompt and train the answer."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from transformers import PreTrainedTokenizerBase

from ..errors import input_error
from .chat_template import ChatTemplate
from .checks import missing_alternates
from .formats import Message, Row, RowFormat, Text, to_row
from .token_columns import FlatRows, RowColumns, given_rows
from .token_labels import tokenized_texts
from .tokenized_row import IGNORED_LABEL, EncodedRow
from .turns import AnswerEnds, Frame, WrittenRow, frame_of, report_template, written_turn


@dataclass(frozen=True, eq=False)
class RowEncoder:
    """Turns a batch of rows of one set into columns of token ids and labels. Its pickle is the key of datasets' cache.

    Attributes:
        tokenizer: with an eos token, and a chat template where rows are conversations; None for tokenised rows.
        set_name: of the set, for error messages.
        row_format: the format of every row.
        conversational: whether rows are message lists; a row that differs is an error.
        max_length: longest row in tokens; the rest is cut from the right. None for no limit.
        template: text around the strings of prompt/completion rows, with the fields `{prompt}` and `{completion}`.
        alternates: whether each row's alternate answer is encoded too, under the same prompt.
        chat_template_kwargs: variables for the chat template; a row's own come before them.
        labels_from: collator that makes the labels of tokenised rows without any; None where rows have their own.
        version: to be raised with every change of the columns a row becomes, so that no cached set outlives it.
    """

    tokenizer: PreTrainedTokenizerBase | None
    set_name: str
    row_format: RowFormat
    conversational: bool
    max_length: int | None = None
    template: str | None = None
    alternates: bool = False
    chat_template_kwargs: Mapping[str, Any] | None = None
    labels_from: Callable[..., Any] | None = None
    version: int = 7

    @property
    def prefixes(self) -> tuple[str, ...]:
        """What the names of the output columns begin with."""
        return ("", "alternate_") if self.alternates else ("",)

    @property
    def uses_chat_template(self) -> bool:
        """Whether text comes from the tokenizer's chat template, which then brings every special token itself."""
        if self.row_format is RowFormat.TEXT:
            return False
        return self.conversational or (self.template is None and self._text_tokenizer.chat_template is not None)

    def __call__(self, batch: RowColumns, indices: Sequence[int]) -> pa.Table:
        """Encode rows given by column; `indices` are their places in the set, for error messages.

        Returns:
            For each prefix of `prefixes`: `input_ids`, `labels` (cut to `max_length`), and one number a row in
            `full_length`, `targets` (both before the cut) and `kept_targets`; for the rows themselves `answer_start`.

        Raises:
            ValueError: a row that `to_row` or the chat template refuses, that differs in type from the set's first
                one, or that lacks a needed alternate.
        """
        places = [f"row {index} of the {self.set_name} set" for index in indices]
        columns: dict[str, Any] = {}
        if self.row_format is RowFormat.TOKENIZED:
            size = None if self.tokenizer is None else len(self.tokenizer)
            if self.labels_from is not None:
                given = zip(batch["input_ids"], places, strict=True)
                batch = {**batch, "labels": [collated_labels(self.labels_from, *row) for row in given]}
            for prefix in self.prefixes:
                columns |= given_rows(batch, prefix, size, places).columns(self.max_length, prefix)
            return pa.table(columns)
        assert not isinstance(batch, pa.Table), "rows of text come as Python strings"
        examples = [dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)]
        rows = [self._row(example, index) for example, index in zip(examples, indices, strict=True)]
        frames: dict[str, Frame] = {}
        for prefix in self.prefixes:
            answers = [row.alternate if prefix else row.completion for row in rows]
            written = [
                self._written(row, self._require(answer, where), where, frames)
                for row, answer, where in zip(rows, answers, places, strict=True)
            ]
            columns |= FlatRows.of(self._tokens(written)).columns(self.max_length, prefix)
        return pa.table(columns)

    @property
    def _text_tokenizer(self) -> PreTrainedTokenizerBase:
        assert self.tokenizer is not None, "only tokenised rows go without a tokenizer"
        return self.tokenizer

    def _row(self, example: dict[str, Any], index: int) -> Row:
        if not self.alternates:
            example.pop("alternate", None)
        row = to_row(example, self.row_format, self.set_name, index=index)
        if row.is_conversational != self.conversational:
            given, wanted = ("a list of messages", "a string")[:: 1 if row.is_conversational else -1]
            raise input_error(
                expected=f"every row of the {self.set_name} set to be {wanted}, like its first",
                got=f"row {index}, which is {given}",
                why="strings and conversations are tokenised differently, and the difference would be learnt",
                fix="write all rows of a set the same way",
            )
        return row

    def _require(self, answer: Text | None, where: str) -> Text:
        if answer is None:
            raise missing_alternates(f"{where}, which has none", self.set_name)
        return answer

    def ends(self, first: Row) -> AnswerEnds:
        """What ends the answers of a set, from its first row."""
        if not self.uses_chat_template:
            return AnswerEnds()
        template, prompt, _ = self._conversation(first, first.completion, f"row 0 of the {self.set_name} set")
        return frame_of(template, prompt).ends

    def report(self, first: Row) -> None:
        """Say once what a chat template leaves to the package: an end of the turn, a date."""
        if not self.uses_chat_template:
            return
        template, prompt, _ = self._conversation(first, first.completion, f"row 0 of the {self.set_name} set")
        report_template(template, frame_of(template, prompt))

    def _conversation(self, row: Row, answer: Text, where: str) -> tuple[ChatTemplate, list[Message], list[Message]]:
        """The template with the row's own variables, the turns of its prompt and those of an answer."""
        prompt = row.prompt
        if isinstance(prompt, str) and isinstance(answer, str):
            prompt, answer = [{"role": "user", "content": prompt}], [{"role": "assistant", "content": answer}]
        variables = {**(self.chat_template_kwargs or {}), **(row.chat_template_kwargs or {})}
        template = ChatTemplate(self._text_tokenizer, row.tools, variables, where)
        return template, list(prompt), list(answer)  # type: ignore[arg-type]  # messages: strings were turned into them

    def _written(self, row: Row, answer: Text, where: str, frames: dict[str, Frame]) -> WrittenRow:
        """A row's text and where its answer lies in it; `frames` of earlier rows, by what they depend on."""
        if self.uses_chat_template:
            template, prompt, turns = self._conversation(row, answer, where)
            # System turns may switch a template's manner, as its variables do; other text does not.
            manner = [(turn["role"], turn["role"] == "system" and turn.get("content")) for turn in prompt]
            key = repr((template.variables, bool(row.tools), manner))
            if key not in frames:
                frames[key] = frame_of(template, prompt)
            return written_turn(template, frames[key], prompt, turns)
        if row.tools:
            raise input_error(
                expected="a chat template, which writes a row's `tools` before its conversation",
                got=f"{where}, with tools, " + ("and a `template`" if self.template else "and chat_template=None"),
                why="the row would be trained without the tools that its answer may call",
                fix="leave `template` out and set tokenizer.chat_template, or dataset.remove_columns('tools')",
            )
        prompt_text = str(row.prompt)
        if self.template is None or self.row_format is RowFormat.TEXT:
            return WrittenRow(f"{prompt_text}{answer}", len(prompt_text), ended=False)
        # Joined, not formatted: braces in the data are only braces.
        before, _, rest = self.template.partition("{prompt}")
        between, _, after = rest.partition("{completion}")
        opening = f"{before}{prompt_text}{between}"
        return WrittenRow(f"{opening}{answer}{after}", len(opening), ended=False, header=bool(between))

    def _tokens(self, rows: list[WrittenRow]) -> list[EncodedRow]:
        eos = self._text_tokenizer.eos_token_id
        encoded = []
        special_tokens = not self.uses_chat_template
        for row, (ids, start, trained) in zip(
            rows, tokenized_texts(self._text_tokenizer, rows, special_tokens), strict=True
        ):
            if not row.ended:
                if ids[-1:] != [eos]:
                    ids, trained = [*ids, eos], [*trained, True]
                start = min(start, len(ids) - 1)  # ending is part of every answer, even of an empty alternate
                trained[-1] = True
            labels = [token if is_trained else IGNORED_LABEL for token, is_trained in zip(ids, trained, strict=True)]
            encoded.append(EncodedRow(ids, labels, start))
        return encoded


def collated_labels(collator: Callable[..., Any], ids: Any, where: str) -> list[int]:
    """The labels that a collator makes of one row's token ids, which it must leave as they are.

    Raises:
        ValueError: it makes none, or changes the ids, as that of a masked language model does.
    """
    problem = "makes no labels"
    try:
        batch = collator([{"input_ids": list(ids), "attention_mask": [1] * len(ids)}])
        if batch.get("labels") is not None and batch["input_ids"][0][: len(ids)].tolist() == list(ids):
            return batch["labels"][0][: len(ids)].tolist()
        problem = problem if batch.get("labels") is None else "changes the token ids"
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        problem = f"fails with a {type(error).__name__}"  # its own message may quote the row
    raise input_error(
        expected="`labels` beside `input_ids`, or a data_collator that makes them, as of a causal language model",
        got=f"{where}, without labels, and {type(collator).__name__}, which {problem}",
        why="it is not known which tokens are the answer",
        fix="pass data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False) to train on every token, or add "
        "`labels`: input_ids with -100 on the prompt, not shifted",
    )
