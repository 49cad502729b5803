"""Encodes a batch of rows: token ids, and labels that mask the prompt and train the answer."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from ..errors import input_error
from .chat_template import ChatTemplate
from .checks import FULL_LENGTH, KEPT_TARGETS, TARGETS, missing_alternates
from .formats import Message, Row, RowFormat, Text, to_row
from .token_labels import tokenized_texts
from .tokenized_row import IGNORED_LABEL, EncodedRow, first_trained, target_count
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

    def __call__(self, batch: Mapping[str, Sequence[Any]], indices: Sequence[int]) -> dict[str, list[Any]]:
        """Encode rows given by column; `indices` are their places in the set, for error messages.

        Returns:
            For each prefix of `prefixes`: `input_ids`, `labels` (cut to `max_length`), and one number a row in
            `full_length`, `targets` (both before the cut) and `kept_targets`; for the rows themselves `answer_start`.

        Raises:
            ValueError: a row that `to_row` or the chat template refuses, that differs in type from the set's first
                one, or that lacks a needed alternate.
        """
        examples = [dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)]
        places = [f"row {index} of the {self.set_name} set" for index in indices]
        columns: dict[str, list[Any]] = {}
        if self.row_format is RowFormat.TOKENIZED:
            size = None if self.tokenizer is None else len(self.tokenizer)
            if self.labels_from is not None:
                examples = [
                    example | {"labels": collated_labels(self.labels_from, example["input_ids"], where)}
                    for example, where in zip(examples, places, strict=True)
                ]
            for prefix in self.prefixes:
                given = [given_tokens(e, prefix, size, where) for e, where in zip(examples, places, strict=True)]
                columns |= self._columns(given, prefix)
            return columns
        rows = [self._row(example, index) for example, index in zip(examples, indices, strict=True)]
        frames: dict[str, Frame] = {}
        for prefix in self.prefixes:
            answers = [row.alternate if prefix else row.completion for row in rows]
            written = [
                self._written(row, self._require(answer, where), where, frames)
                for row, answer, where in zip(rows, answers, places, strict=True)
            ]
            columns |= self._columns(self._tokens(written), prefix)
        return columns

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

    def _columns(self, rows: list[EncodedRow], prefix: str) -> dict[str, list[Any]]:
        cut = slice(self.max_length)
        columns: dict[str, list[Any]] = {
            "input_ids": [row.input_ids[cut] for row in rows],
            "labels": [row.labels[cut] for row in rows],
            FULL_LENGTH: [len(row.input_ids) for row in rows],
            TARGETS: [target_count(row.labels) for row in rows],
            KEPT_TARGETS: [target_count(row.labels[cut]) for row in rows],
        }
        columns = {f"{prefix}{name}": values for name, values in columns.items()}
        # Of alternates nobody asks it. A row that is cut before its answer has no target left, and is refused later.
        return columns if prefix else columns | {"answer_start": [row.answer_start for row in rows]}


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


def given_tokens(example: Mapping[str, Any], prefix: str, vocabulary_size: int | None, where: str) -> EncodedRow:
    """The checked ids and labels of an already tokenised row, without its padding.

    Args:
        example: the row, by column.
        prefix: "alternate_" for the row's alternate, else "".
        vocabulary_size: bound on the ids; None where no tokenizer says it.
        where: the row's place, for the error message.

    Raises:
        ValueError: not one list of integers each, unlike lengths, ids outside the vocabulary, labels that are neither
            -100 nor the id at their place, or an attention mask with a hole.
    """
    names = (f"{prefix}input_ids", f"{prefix}labels", f"{prefix}attention_mask")
    values = [example.get(name) for name in names]
    if values[2] is None and isinstance(values[0], list):
        values[2] = [1] * len(values[0])
    arrays = [np.asarray(value) if isinstance(value, list) else np.empty((0, 0)) for value in values]
    ids, labels, mask = arrays
    problem = None
    if any(array.ndim != 1 or array.dtype.kind not in "iu" for array in arrays):
        problem = f"{' or '.join(names)} missing, empty or not a flat list of integers"
    elif not len(ids) == len(labels) == len(mask):
        problem = f"{len(ids)} ids, {len(labels)} labels and {len(mask)} mask entries"
    elif ids.min() < 0 or (vocabulary_size is not None and ids.max() >= vocabulary_size):
        problem = f"ids from {ids.min()} to {ids.max()} for a vocabulary of {vocabulary_size or 'unknown'} tokens"
    elif ((labels != IGNORED_LABEL) & (labels != ids)).any():
        problem = "labels that are neither -100 nor the id at the same place (shifted ones, perhaps)"
    else:
        # Labels are authoritative: a mask made as `ids != pad` hides a real end-of-turn token, and its label says so.
        real = np.flatnonzero((mask != 0) | (labels != IGNORED_LABEL))
        inside = slice(real[0], real[-1] + 1) if len(real) else slice(0)
        if len(real) == len(ids[inside]):
            kept = labels[inside].tolist()
            return EncodedRow(ids[inside].tolist(), kept, first_trained(kept))
        problem = "an attention mask with zeros between its ones"
    raise input_error(
        expected=f"`{names[0]}` and `{names[1]}` of one length, with labels -100 on the prompt and the ids elsewhere",
        got=f"{where}, with {problem}",
        why="labels are shifted once, inside the loss, and every position counts as part of the text",
        fix="correct the rows, or pass them as text and let them be tokenised here",
    )
