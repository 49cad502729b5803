"""Row formats: which one the columns of a set spell, and a row of it as prompt, completion and alternate."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from trl import extract_prompt

from ..errors import input_error
from .chat_template import check_template_kwargs
from .column_advice import column_advice
from .roles import check_set_name
from .tools import Tool, row_tools, shared_calls, with_plain_calls

Message = dict[str, Any]
Text = str | list[Message]


class RowFormat(StrEnum):
    """The accepted formats, each named after the columns that spell it."""

    PROMPT_COMPLETION = "prompt_completion"
    MESSAGES = "messages"
    TEXT = "text"
    PREFERENCE = "preference"
    IMPLICIT_PREFERENCE = "implicit_preference"
    TOKENIZED = "tokenized"


# Columns that the chat template reads beside the conversation; text and token rows have none, and do without.
_OF_TEMPLATE = ("tools", "chat_template_kwargs")
# Format -> the columns it must have, the columns it may have. Columns that no format knows are left alone.
_COLUMNS = {
    RowFormat.PROMPT_COMPLETION: ({"prompt", "completion"}, {"alternate", *_OF_TEMPLATE}),
    RowFormat.MESSAGES: ({"messages"}, {"alternate", *_OF_TEMPLATE}),
    RowFormat.TEXT: ({"text"}, {"alternate"}),
    RowFormat.PREFERENCE: ({"prompt", "chosen", "rejected"}, {*_OF_TEMPLATE}),
    RowFormat.IMPLICIT_PREFERENCE: ({"chosen", "rejected"}, {*_OF_TEMPLATE}),
    RowFormat.TOKENIZED: (
        {"input_ids", "labels"},
        {"attention_mask", "alternate_input_ids", "alternate_labels", "alternate_attention_mask"},
    ),
}
_KNOWN_COLUMNS = set().union(*(required | optional for required, optional in _COLUMNS.values())) - {*_OF_TEMPLATE}
# ShareGPT's speakers -> roles of chat templates. Its `function_call` is an assistant's turn that calls tools.
_SPEAKERS = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
_SPEAKERS |= {"tool": "tool", "observation": "tool", "function_response": "tool"}


@dataclass(frozen=True)
class Row:
    """One row in the package's own terms. All three are strings, or all three are lists of chat messages.

    Attributes:
        prompt: what comes before the answer; "" for a `text` row, which is all answer.
        completion: the answer: what a forget set unlearns and a retain set keeps.
        alternate: another answer to the same prompt (a refusal, a counterfactual); "" stands for ending at once, and
            None for a row that has none.
        tools: that the chat template is to write, as it takes them; None for a row that has none.
        chat_template_kwargs: the row's own variables for the chat template; None for a row that has none.
    """

    prompt: Text
    completion: Text
    alternate: Text | None = None
    tools: list[Tool] | None = None
    chat_template_kwargs: Mapping[str, Any] | None = None

    @property
    def is_conversational(self) -> bool:
        """Whether the row is made of chat messages."""
        return isinstance(self.completion, list)


def format_columns(row_format: RowFormat, column_names: Collection[str]) -> list[str]:
    """The columns of a set, in its own order, that its format reads."""
    required, optional = _COLUMNS[row_format]
    return [name for name in column_names if name in required | optional]


def read_columns(row_format: RowFormat, first: Mapping[str, Any]) -> list[str]:
    """The columns to read of rows that are dictionaries of their own: those of the first one, and any row's tools."""
    own = format_columns(row_format, list(first))
    return [*own, *(name for name in _OF_TEMPLATE if name in _COLUMNS[row_format][1] and name not in own)]


def detect_format(column_names: Collection[str], set_name: str, argument: str | None = None) -> RowFormat:
    """Recognise a set's row format from its column names alone.

    Args:
        column_names: the columns; those that belong to no format are ignored, and beside `input_ids` and `labels`, as
            in plain Trainer, those of the text that they were made from.
        set_name: "forget", "retain", "holdout", or "eval" for any other.
        argument: flag of the command line that renames the columns, where the set came from there.

    Raises:
        ValueError: the columns spell no format or more than one, or a retain or holdout set has preference rows.
    """
    check_set_name(set_name)
    known = _KNOWN_COLUMNS.intersection(column_names)
    spelled = [row_format for row_format, (required, _) in _COLUMNS.items() if required <= known]
    if RowFormat.TOKENIZED in spelled:
        return RowFormat.TOKENIZED
    if RowFormat.PREFERENCE in spelled:
        spelled.remove(RowFormat.IMPLICIT_PREFERENCE)
    if not spelled:
        raise _missing_columns(column_names, set_name, argument)
    unused = known.difference(format_columns(spelled[0], known))
    if unused:  # a second format's columns are never all among the first one's
        raise input_error(
            expected=f"the {set_name} set to have the columns of one row format",
            got=f"columns {sorted(known)}, where {sorted(unused)} do not go with {spelled[0].value!r} rows",
            why="it is not clear which columns hold the answer, and training on the wrong one cannot be undone",
            fix=f"drop what is not meant, e.g. dataset.remove_columns({sorted(unused)})",
        )
    if spelled[0] in (RowFormat.PREFERENCE, RowFormat.IMPLICIT_PREFERENCE) and set_name in ("retain", "holdout"):
        raise input_error(
            expected=f"one answer per row in the {set_name} set",
            got="preference rows (`chosen` and `rejected`)",
            why="in a forget set `rejected` is what to forget, so reading it as what to keep would be the opposite",
            fix="rename the column to keep: dataset.remove_columns('rejected').rename_columns("
            + str({"chosen": "completion" if "prompt" in known else "messages"})
            + ")",
        )
    return spelled[0]


def _missing_columns(column_names: Collection[str], set_name: str, argument: str | None) -> ValueError:
    return input_error(
        expected=f"the {set_name} set to have `prompt` and `completion`, or `messages`, or `text`, "
        + ("" if set_name in ("retain", "holdout") else "or `prompt`, `chosen` and `rejected`, ")
        + "or `input_ids` and `labels`",
        got=f"columns {list(column_names)}",
        why="the answer must be known apart from its prompt: only answers are trained",
        fix=column_advice(column_names, argument),
    )


def to_row(example: Mapping[str, Any], row_format: RowFormat, set_name: str, *, index: int | None = None) -> Row:
    """Turn one row of a set into prompt, completion and alternate.

    Args:
        example: the row, by column.
        row_format: what `detect_format` said; any but `TOKENIZED`, whose rows are no longer text.
        set_name: of the set, for the error message.
        index: the row's place in its set, for the error message.

    Raises:
        ValueError: a missing, empty or mistyped value; strings and message lists in one row; a conversation that does
            not end with an assistant turn. The message has the row's place, never its text.
    """
    where = f"row {index} of the {set_name} set" if index is not None else f"a row of the {set_name} set"
    if row_format is RowFormat.TOKENIZED:
        raise input_error(
            expected="a row of text or messages",
            got=f"{where}, already tokenised",
            why="token ids cannot be turned back into the text they came from",
            fix="pass such sets to tokenize_rows, which checks and keeps the ids",
        )
    tools = row_tools(example.get("tools"), where) if "tools" in _COLUMNS[row_format][1] else None
    kwargs = _template_kwargs(example, row_format, where)
    if row_format in (RowFormat.PREFERENCE, RowFormat.IMPLICIT_PREFERENCE):
        return replace(_preference_row(example, where), tools=tools, chat_template_kwargs=kwargs)
    alternate = example.get("alternate")
    if row_format is RowFormat.MESSAGES:
        messages = _checked(example.get("messages"), "messages", where, (list,))
        prompt, completion, name = messages[:-1], messages[-1:], "messages"
    elif row_format is RowFormat.TEXT:
        prompt, completion, name = "", _checked(example.get("text"), "text", where, (str,)), "text"
    else:
        prompt, completion = (_checked(example.get(column), column, where) for column in ("prompt", "completion"))
        name = "completion"
    if isinstance(completion, list) and isinstance(alternate, str):
        alternate = [{"role": "assistant", "content": alternate}]
    if alternate is not None:
        alternate = _checked(alternate, "alternate", where)
    row = _assembled(prompt, completion, alternate, ("prompt", name, "alternate"), where)
    return replace(row, tools=tools, chat_template_kwargs=kwargs)


def _template_kwargs(example: Mapping[str, Any], row_format: RowFormat, where: str) -> dict[str, Any] | None:
    """The row's own variables for the chat template, without those that Arrow filled with None."""
    given = example.get("chat_template_kwargs") if "chat_template_kwargs" in _COLUMNS[row_format][1] else None
    check_template_kwargs(given, f"`chat_template_kwargs` of {where}")
    return given and {name: value for name, value in given.items() if value is not None}


def _preference_row(example: Mapping[str, Any], where: str) -> Row:
    chosen, rejected = (_checked(example.get(name), name, where) for name in ("chosen", "rejected"))
    prompt: Any = _checked(example["prompt"], "prompt", where) if "prompt" in example else None
    # Some sets hold the prompt as a string beside conversations that begin with it: these decide, as in TRL.
    if isinstance(chosen, list) and isinstance(rejected, list) and not isinstance(prompt, list):
        parts: dict[str, Any] = extract_prompt({"chosen": chosen, "rejected": rejected})
        prompt, chosen, rejected = parts["prompt"], parts["chosen"], parts["rejected"]
    elif prompt is None:
        raise input_error(
            expected="a `prompt` column, or `chosen` and `rejected` as message lists that begin with the same turns",
            got=f"{where}, whose `chosen` is a {type(chosen).__name__} and `rejected` a {type(rejected).__name__}",
            why="the characters two answers share are not where the prompt ends, so the mask would be wrong",
            fix="add a `prompt` column and leave the prompt out of the answers",
        )
    return _assembled(prompt, rejected, chosen, ("prompt", "rejected", "chosen"), where)


def _assembled(prompt: Text, completion: Text, alternate: Text | None, names: tuple[str, ...], where: str) -> Row:
    """The row, once its parts agree with each other and its answers can be answers."""
    parts = dict(zip(names, (prompt, completion, alternate), strict=True))
    kinds = {name: type(value).__name__ for name, value in parts.items() if value is not None}
    if len(set(kinds.values())) > 1:
        raise input_error(
            expected="every part of a row to be a string, or every part a list of messages",
            got=f"{where}, with {', '.join(f'`{name}` of type {kind}' for name, kind in kinds.items())}",
            why="a chat template cannot be applied to half a conversation",
            fix='write the strings as messages: [{"role": "user" or "assistant", "content": "..."}]',
        )
    if isinstance(prompt, list) and not prompt:
        raise input_error(
            expected="at least one turn before the answer",
            got=f"{where}, whose conversation holds only the answer",
            why="there is no prompt to condition on",
            fix="add the user's turn, or pass prose without a prompt as a `text` column",
        )
    for name in names[1:]:
        _check_answer(parts[name], name, where, blank_is_fine=name == "alternate")
    return Row(prompt, completion, alternate)


def _check_answer(answer: Text | None, name: str, where: str, *, blank_is_fine: bool) -> None:
    if isinstance(answer, list) and any(message["role"] != "assistant" for message in answer):
        raise input_error(
            expected="an assistant turn at the end of a conversation, and nothing but assistant turns in an answer",
            got=f"{where}, where the answer in `{name}` has a turn of another role",
            why="every token of an answer is trained, and another speaker's turns are not the model's own",
            fix="end the conversation with the assistant's turn, and move earlier turns into the prompt",
        )
    said = [answer] if isinstance(answer, str) else []
    if isinstance(answer, list):  # a turn that only calls a tool is an answer, too
        said = ["call" if message.get("tool_calls") else message.get("content") or "" for message in answer]
    if answer is not None and not blank_is_fine and not "".join(said).strip():
        raise input_error(
            expected=f"an answer in `{name}`",
            got=f"{where}, where it is empty or only whitespace",
            why="a row without an answer has nothing to learn or forget",
            fix=f"drop such rows: dataset.filter(lambda row: ...) on `{name}`",
        )


def _checked(value: Any, name: str, where: str, kinds: tuple[type[str] | type[list], ...] = (str, list)) -> Any:
    """A part of a row as it came, or its messages without the keys that Arrow filled with None."""
    if not isinstance(value, kinds) or value == []:
        problem = "missing" if value is None else "an empty list" if value == [] else f"a {type(value).__name__}"
        accepted = ["a string" if kind is str else "a list of messages" for kind in kinds]
        raise input_error(
            expected=f"`{name}` to be {' or '.join(accepted)}",
            got=f"{where}, where it is {problem}",
            why="nothing else can be tokenised",
            fix=f"fill, convert or drop the rows without such a `{name}`",
        )
    if isinstance(value, str):
        return value
    return [_checked_message(message, name, where) for message in value]


def _checked_message(message: Any, name: str, where: str) -> Message:
    if isinstance(message, Mapping) and message.get("from") in _SPEAKERS and message.get("role") is None:
        message = {"role": _SPEAKERS[message["from"]], "content": message.get("value")}
    elif isinstance(message, Mapping) and message.get("from") == "function_call" and message.get("role") is None:
        calls = shared_calls(message.get("value"))
        message = message if calls is None else {"role": "assistant", "content": "", "tool_calls": calls}
    is_message = isinstance(message, Mapping) and isinstance(message.get("role"), str)
    # Only a turn that calls tools may have no text of its own.
    if not is_message or not (isinstance(message.get("content"), str) or message.get("tool_calls")):
        wrong = f"a message's content is a {type(message.get('content')).__name__}" if is_message else "one is not"
        raise input_error(
            expected=f"every message of `{name}` to have a `role` and a `content`, both strings",
            got=f"{where}, where {wrong}",
            why="chat templates read these two keys",
            fix='write messages as {"role": "user", "content": "..."}; text only, no images. A `function_call` of '
            "ShareGPT is read where it is JSON with a name and arguments",
        )
    return with_plain_calls(message, name, where)
