"""Tools in conversations: those that a row declares, and the calls in its turns, as chat templates take them."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import input_error

Tool = dict[str, Any] | Callable[..., Any]


def row_tools(value: Any, where: str) -> list[Tool] | None:
    """The tools of a row as `apply_chat_template` takes them; None where it has none.

    Args:
        value: of the column `tools`: a list of JSON schemas (or functions), each also as a JSON string, or a JSON
            string of the whole list.
        where: the row's place, for the error message.

    Raises:
        ValueError: it is something else.
    """
    tools = _decoded(value)
    if tools is None or tools == []:
        return None
    if isinstance(tools, list):
        tools = [without_nulls(_decoded(tool)) for tool in tools]
    if not isinstance(tools, list) or not all(isinstance(tool, Mapping) or callable(tool) for tool in tools):
        raise input_error(
            expected="`tools` to be a list of JSON schemas, or a JSON string of one",
            got=f"{where}, where it is something else",
            why="the chat template writes the tools before the conversation, and the model was trained with them",
            fix='write a tool as {"type": "function", "function": {"name": ..., "parameters": {...}}}',
        )
    return tools


def with_plain_calls(message: Mapping[str, Any], name: str, where: str) -> dict[str, Any]:
    """A message without the keys that Arrow filled with null, its calls' arguments as mappings.

    Arrow gives every struct of a column the keys of all rows, so that a call's arguments come with those of other
    calls, as null. They cannot be told from a null that was written; an argument that is null is to be a JSON string.

    Args:
        message: of a conversation.
        name: of its column, for the error message.
        where: the row's place, for the error message.

    Raises:
        ValueError: calls that are no list of mappings, or arguments that are neither a mapping nor its JSON string.
    """
    plain: dict[str, Any] = without_nulls(message)
    if "tool_calls" not in plain:
        return plain
    calls = _decoded(plain.pop("tool_calls"))
    if not calls:
        return plain
    if not isinstance(calls, list) or not all(isinstance(call, Mapping) for call in calls):
        raise _unreadable_calls(name, where, "calls that are no list of mappings")
    return plain | {"tool_calls": [_plain_call(call, name, where) for call in calls]}


def shared_calls(value: Any) -> list[dict[str, Any]] | None:
    """The tool calls of a ShareGPT turn `function_call`: JSON of one call or a list of them; None for other text."""
    calls = _decoded(value)
    calls = calls if isinstance(calls, list) else [calls]
    if not calls or not all(isinstance(call, Mapping) and isinstance(call.get("name"), str) for call in calls):
        return None
    return [{"type": "function", "function": dict(call)} for call in calls]


def without_nulls(value: Any) -> Any:
    """A value without the keys that hold None, at any depth."""
    if isinstance(value, Mapping):
        return {key: without_nulls(inner) for key, inner in value.items() if inner is not None}
    return [without_nulls(inner) for inner in value] if isinstance(value, list) else value


def with_json_arguments(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The messages with the arguments of their calls as JSON strings, which some chat templates join to their text."""
    written = []
    for message in messages:
        calls = [
            _with_function(call, {"arguments": json.dumps(_function(call)["arguments"], ensure_ascii=False)})
            if "arguments" in _function(call)
            else call
            for call in message.get("tool_calls") or []
        ]
        written.append(message | {"tool_calls": calls} if calls else message)
    return written


def _plain_call(call: Mapping[str, Any], name: str, where: str) -> dict[str, Any]:
    """A call, its arguments a mapping; OpenAI's APIs write them as a JSON string."""
    function = _function(call)
    if "arguments" not in function:
        return dict(call)
    arguments = _decoded(function["arguments"]) if function["arguments"] != "" else {}
    if not isinstance(arguments, Mapping):
        raise _unreadable_calls(name, where, f"arguments that are a {type(function['arguments']).__name__}")
    return _with_function(call, {"arguments": dict(arguments)})


def _function(call: Mapping[str, Any]) -> Mapping[str, Any]:
    """What is called: under `function`, or the call itself where it is written flat."""
    function = call.get("function")
    return function if isinstance(function, Mapping) else call


def _with_function(call: Mapping[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    nested = isinstance(call.get("function"), Mapping)
    return {**call, "function": {**call["function"], **values}} if nested else {**call, **values}


def _decoded(value: Any) -> Any:
    """What a JSON string holds; the value itself where it is none."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        return value


def _unreadable_calls(name: str, where: str, got: str) -> ValueError:
    return input_error(
        expected=f"the tool calls of `{name}` as a list, each with a name and its arguments as a mapping",
        got=f"{where}, with {got}",
        why="a chat template writes name and arguments, and what it cannot read would be learnt wrong or not at all",
        fix='write {"type": "function", "function": {"name": "...", "arguments": {...}}}; a JSON string of the '
        "arguments will do",
    )
