"""Renders conversations through a tokenizer's chat template: its variables, its date, and the marks it may have."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

from ..errors import input_error
from .tools import Tool, with_json_arguments

# What a template that writes the date is given: the one that Llama 3's own template falls back to. Any fixed date
# does; today's would make other rows of the same set tomorrow.
FIXED_DATE = date(2024, 7, 26)
DATE_VARIABLE = "strftime_now"
_DATE = re.compile(r"""strftime_now\(\s*(["'])((?:(?!\1).)*)\1\s*\)""")
# What a chat template raises by itself, or where it takes what a row holds for something else.
_TEMPLATE_ERRORS = (TemplateError, TypeError, ValueError, AttributeError, KeyError)
_MARK = re.compile(r"\{%-?\s*generation\s*-?%\}")
# Arguments of apply_chat_template that the package sets itself, or that would make no text.
_NOT_VARIABLES = (
    "conversation",
    "tools",
    "chat_template",
    "add_generation_prompt",
    "continue_final_message",
    "tokenize",
    "return_dict",
    "return_tensors",
    "return_assistant_tokens_mask",
    "padding",
    "truncation",
    "max_length",
)


def check_template_kwargs(kwargs: Any, where: str = "chat_template_kwargs") -> None:
    """Raise a ValueError unless `kwargs` is None or variables for a chat template, by name."""
    if kwargs is None:
        return
    problem = None if isinstance(kwargs, Mapping) else f"a {type(kwargs).__name__}"
    taken = [] if problem else [name for name in kwargs if name in _NOT_VARIABLES]
    if problem or taken:
        raise input_error(
            expected=f"{where} to be a mapping of variables that the chat template reads",
            got=problem or f"the argument {taken[0]!r}",
            why="they are handed to the template; how it is applied is the package's own business",
            fix='pass e.g. {"enable_thinking": false}',
        )
    given = kwargs.get(DATE_VARIABLE)
    if given is not None:
        _date(given, where)


def _date(given: Any, where: str) -> date:
    try:
        return date.fromisoformat(given)
    except (TypeError, ValueError):
        raise input_error(
            expected=f"{DATE_VARIABLE} in {where} to be a date such as '{FIXED_DATE}'",
            got=f"a {type(given).__name__}" + (" of another form" if isinstance(given, str) else ""),
            why="the template writes it into every row",
            fix=f"pass {{{DATE_VARIABLE!r}: '{FIXED_DATE}'}}, or leave it out for that date",
        ) from None


@dataclass(frozen=True)
class ChatTemplate:
    """A chat template with what it is given beside the conversation.

    Attributes:
        tokenizer: whose template it is.
        tools: that the template is to write, as it takes them; None for none.
        variables: for the template (`enable_thinking`, ...).
        where: the row's place, for error messages.
    """

    tokenizer: PreTrainedTokenizerBase
    tools: list[Tool] | None
    variables: Mapping[str, Any]
    where: str

    @property
    def source(self) -> str:
        """The template's text, with a fixed date where it asks for today's.

        Raises:
            ValueError: the date is written in a form that is known only when it is rendered.
        """
        source = self.tokenizer.get_chat_template(None, self.tools)
        if DATE_VARIABLE not in source:
            return source
        given = self.variables.get(DATE_VARIABLE)
        day = FIXED_DATE if given is None else _date(given, "chat_template_kwargs")
        dated = _DATE.sub(lambda match: repr(day.strftime(match[2])), source)
        if f"{DATE_VARIABLE}(" in dated:
            raise input_error(
                expected="a chat template whose text does not change from day to day",
                got=f"one that writes today's date by {DATE_VARIABLE}, in a form that cannot be fixed beforehand",
                why="rows encoded tomorrow would be other rows: results, caches and checkpoints would not fit",
                fix="set tokenizer.chat_template to one that writes a date of your choice",
            )
        return dated

    @property
    def asks_for_the_date(self) -> bool:
        """Whether the template writes the day on which it is rendered, unless it is given one."""
        return DATE_VARIABLE in self.tokenizer.get_chat_template(None, self.tools)

    @property
    def marks_answers(self) -> bool:
        """Whether the template marks what the model generates (`{% generation %}`)."""
        return _MARK.search(self.tokenizer.get_chat_template(None, self.tools)) is not None

    def render(self, messages: list[dict[str, Any]], *, prompts: bool = False) -> str:
        """The text of a conversation; `prompts`: with the start of the assistant's turn at its end."""
        options = dict(tools=self.tools, chat_template=self.source, tokenize=False, add_generation_prompt=prompts)

        def write(messages: list[dict[str, Any]]) -> str:
            # Without tokenize it is a string, which its annotation cannot say.
            return str(self.tokenizer.apply_chat_template(messages, **options, **self._given))

        return self._written(write, messages)

    def marked(self, messages: list[dict[str, Any]]) -> list[tuple[int, int]]:
        """The characters (from, to) of a conversation's text that the template marks as generated."""
        options = dict(tools=self.tools, chat_template=self.source, return_assistant_tokens_mask=True)

        def spans(messages: list[dict[str, Any]]) -> list[tuple[int, int]]:
            _, marks = render_jinja_template([messages], **options, **self.tokenizer.special_tokens_map, **self._given)
            return [(int(start), int(end)) for start, end in marks[0]]

        return self._written(spans, messages)

    @property
    def _given(self) -> dict[str, Any]:
        return {name: value for name, value in self.variables.items() if name != DATE_VARIABLE}

    def _written(self, write: Callable[[list[dict[str, Any]]], Any], messages: list[dict[str, Any]]) -> Any:
        """What `write` makes of a conversation; its error names the row's place and none of its text."""
        try:
            try:
                return write(messages)
            except TypeError:
                # Templates that join a call's arguments to their text want them as a JSON string.
                written = with_json_arguments(messages)
                if written == messages:
                    raise
                return write(written)
        except _TEMPLATE_ERRORS as error:
            raise input_error(
                expected="conversations that the tokenizer's chat template accepts",
                got=f"{self.where}, which it refuses with a {type(error).__name__}",  # its own words may quote the row
                why="the text of the row is what the template makes of it",
                fix="change the roles or their order, the tools or their calls, or set tokenizer.chat_template",
            ) from None
