"""Encodes a batch of rows: token ids, and labels that mask the prompt and train the answer."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from typing import Any

import numpy as np
from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from ..errors import input_error
from .checks import FULL_LENGTH, KEPT_TARGETS, TARGETS, missing_alternates
from .formats import Message, Row, RowFormat, Text, to_row
from .tokenized_row import IGNORED_LABEL, EncodedRow, first_trained, target_count
from .tools import Tool, with_json_arguments

# What a chat template raises by itself, or where it takes what a row holds for something else.
_TEMPLATE_ERRORS = (TemplateError, TypeError, ValueError, AttributeError, KeyError)


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
    labels_from: Callable[..., Any] | None = None
    version: int = 3

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
        for prefix in self.prefixes:
            answers = [row.alternate if prefix else row.completion for row in rows]
            texts = [
                self._texts(row, self._require(answer, where), where)
                for row, answer, where in zip(rows, answers, places, strict=True)
            ]
            columns |= self._columns(self._tokens(texts), prefix)
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

    def _texts(self, row: Row, answer: Text, where: str) -> tuple[str, str]:
        """The text before the answer, and the whole text, which begins with it."""
        prompt = row.prompt
        if self.uses_chat_template:
            if isinstance(prompt, str) and isinstance(answer, str):
                prompt = [{"role": "user", "content": prompt}]
                answer = [{"role": "assistant", "content": answer}]
            return self._chat_texts(list(prompt), list(answer), row.tools, where)  # type: ignore[arg-type]
        if row.tools:
            raise input_error(
                expected="a chat template, which writes a row's `tools` before its conversation",
                got=f"{where}, with tools, " + ("and a `template`" if self.template else "and chat_template=None"),
                why="the row would be trained without the tools that its answer may call",
                fix="leave `template` out and set tokenizer.chat_template, or dataset.remove_columns('tools')",
            )
        if self.template is None or self.row_format is RowFormat.TEXT:
            return str(prompt), f"{prompt}{answer}"
        # Joined, not formatted: braces in the data are only braces.
        before, _, rest = self.template.partition("{prompt}")
        between, _, after = rest.partition("{completion}")
        opening = f"{before}{prompt}{between}"
        return opening, f"{opening}{answer}{after}"

    def _chat_texts(
        self, prompt: list[Message], answer: list[Message], tools: list[Tool] | None, where: str
    ) -> tuple[str, str]:
        try:
            opening, whole = self._rendered(prompt, answer, tools)
        except _TEMPLATE_ERRORS as error:
            raise input_error(
                expected="conversations that the tokenizer's chat template accepts",
                got=f"{where}, which it refuses with a {type(error).__name__}",  # its own words may quote the row
                why="the text of the row is what the template makes of it",
                fix="change the roles or their order, the tools or their calls, or set tokenizer.chat_template",
            ) from None
        if not whole.startswith(opening):
            raise input_error(
                expected="a chat template whose generation prompt begins the assistant's turn",
                got=f"{where}, which does not begin as its prompt and the generation prompt do",
                why="where the answer starts would be a guess, and the mask would be wrong",
                fix="set tokenizer.chat_template to one that writes both alike, or pass strings and a `template`",
            )
        return opening, whole

    def _rendered(self, prompt: list[Message], answer: list[Message], tools: list[Tool] | None) -> tuple[str, str]:
        """The conversation before its answer, and the whole one, as the chat template writes them."""
        render = partial(self._text_tokenizer.apply_chat_template, tools=tools, tokenize=False)
        conversation = [*prompt, *answer]
        try:
            # Without tokenize they return strings, which their annotations cannot say.
            return str(render(prompt, add_generation_prompt=True)), str(render(conversation))
        except TypeError:
            # Templates that join a call's arguments to their text want them as a JSON string.
            written = with_json_arguments(conversation)
            if written == conversation:
                raise
            return str(render(written[: len(prompt)], add_generation_prompt=True)), str(render(written))

    def _tokens(self, texts: list[tuple[str, str]]) -> list[EncodedRow]:
        eos = self._text_tokenizer.eos_token_id
        rows = []
        for ids, start in zip(*answer_starts(self._text_tokenizer, texts, not self.uses_chat_template), strict=True):
            if not self.uses_chat_template:
                if ids[-1:] != [eos]:
                    ids = [*ids, eos]
                start = min(start, len(ids) - 1)  # ending is part of every answer, even of an empty alternate
            rows.append(EncodedRow(ids, [IGNORED_LABEL] * start + ids[start:], start))
        return rows

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


def answer_starts(
    tokenizer: PreTrainedTokenizerBase, texts: list[tuple[str, str]], special_tokens: bool
) -> tuple[list[list[int]], list[int]]:
    """Token ids of whole texts, and in each the place of the first answer token.

    A token belongs to the answer when it ends after the prompt's last character, so one that spans the boundary does.

    Args:
        tokenizer: fast (the boundary comes from character offsets) or slow (from the ids that the prompt alone has).
        texts: (prompt, whole text) pairs; each whole text begins with its prompt.
        special_tokens: whether the tokenizer adds its own (bos, ...).
    """
    options = dict(add_special_tokens=special_tokens, return_attention_mask=False, verbose=False)
    wholes = [whole for _, whole in texts]
    if tokenizer.is_fast:
        encoded = tokenizer(wholes, return_offsets_mapping=True, **options)
        starts = [
            # An added bos has offsets (0, 0), so it is never the first answer token, not even without a prompt.
            next((place for place, (_, end) in enumerate(offsets) if end > len(prompt)), len(offsets))
            for (prompt, _), offsets in zip(texts, encoded["offset_mapping"], strict=True)
        ]
        return encoded["input_ids"], starts
    ids = tokenizer(wholes, **options)["input_ids"]
    prompts = tokenizer([prompt for prompt, _ in texts], **options)["input_ids"]
    starts = [
        sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(prompt, whole, strict=False)))
        for prompt, whole in zip(prompts, ids, strict=True)
    ]
    return ids, starts


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
