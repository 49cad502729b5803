"""Tools in rows: what the chat template is given, in every way that rows write tools and calls. No model."""

import json

import datasets
import pytest

from fixtures.models import tiny_tokenizer
from hf_unlearn.data.neighbours import row_texts
from hf_unlearn.data.tokenization import tokenize_rows

# Writes tools, calls and tools' answers as Qwen's template does; DeepSeek's joins the arguments to its text.
QWEN = (
    "{% if tools %}TOOLS{% for tool in tools %} {{ tool | tojson }}{% endfor %}\n{% endif %}"
    "{% for message in messages %}<{{ message.role }}>{{ message.content or '' }}"
    "{% for call in message.tool_calls or [] %}CALL {{ call.function.name }} {{ ARGUMENTS }}{% endfor %}"
    "{{ eos_token }}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
).replace("ARGUMENTS", "call.function.arguments | tojson")
DEEPSEEK = QWEN.replace("{{ call.function.arguments | tojson }}", "{{ ' ' + call.function.arguments }}")
USER, ANSWER = {"role": "user", "content": "Weather?"}, {"role": "assistant", "content": "Sunny."}


def tool(name: str, *properties: str) -> dict:
    parameters = {"type": "object", "properties": {one: {"type": "string"} for one in properties}}
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


def call(name: str, arguments: dict | str) -> dict:
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


def turn(*calls: dict, **more) -> dict:
    return {"role": "assistant", "tool_calls": list(calls), **more}


def texts(rows, chat_template: str = QWEN, **options) -> list[tuple[str, str]]:
    """What stands before each row's answer, and the answer, as they are trained."""
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = chat_template
    tokenized = tokenize_rows(rows, tokenizer, set_name="forget", max_length=None, **options)
    parts = [(row["input_ids"][: (start := row["answer_start"])], row["input_ids"][start:]) for row in tokenized]
    return [tuple(tokenizer.decode(part) for part in both) for both in parts]


WEATHER, PAY = tool("weather", "city"), tool("pay", "amount")
ROWS = [
    {"messages": [USER, turn(call("weather", {"city": "Rome"}))], "tools": [WEATHER]},
    {"messages": [USER, turn(call("pay", {"amount": "5"}), call("weather", {"city": "Oslo"}))], "tools": [PAY]},
    {
        "messages": [USER, turn(call("weather", {"city": "Bern"})), {"role": "tool", "content": "22"}, ANSWER],
        "tools": [WEATHER, PAY],
    },
]
ANSWERS = [
    'CALL weather {"city": "Rome"}</s>',
    'CALL pay {"amount": "5"}CALL weather {"city": "Oslo"}</s>',
    "Sunny.</s>",
]


@pytest.mark.parametrize("rows", [ROWS, datasets.Dataset.from_list(ROWS)], ids=["list", "arrow"])
def test_tools_and_calls_reach_the_template_without_the_nulls_of_other_rows(rows):
    """from_list fills `amount` into the weather's arguments, and every parameter into every tool."""
    found = texts(rows)
    assert [answer for _, answer in found] == ANSWERS
    for row, (prompt, _) in zip(ROWS, found, strict=True):
        assert "null" not in prompt and prompt.count('"type": "function"') == len(row["tools"])
        assert all(json.dumps(one) in prompt for one in row["tools"])
    assert found[2][0].endswith('CALL weather {"city": "Bern"}</s><tool>22</s><assistant>')


def test_every_way_to_write_tools_and_arguments_is_the_same_text():
    plain = texts(ROWS[:1])
    string = {"messages": [USER, turn(call("weather", json.dumps({"city": "Rome"})), content=None)]}
    for tools in (json.dumps([WEATHER]), [json.dumps(WEATHER)], [WEATHER]):
        assert texts([string | {"tools": tools}]) == plain
    # Of a list, rows after the first may have tools alone; none, and an empty list, are no tools.
    assert texts([{"messages": [USER, ANSWER]}, ROWS[0]])[1] == plain[0]
    bare = texts([{"messages": [USER, ANSWER]}])
    assert [texts([{"messages": [USER, ANSWER], "tools": none}]) for none in (None, [], "[]")] == [bare] * 3
    # A template that joins the arguments to its text is given their JSON, whatever the row has.
    wanted = [("<user>Weather?</s><assistant>", 'CALL weather  {"city": "Rome"}</s>')]
    rows = [{"messages": [USER, turn(call("weather", given))]} for given in ({"city": "Rome"}, '{"city": "Rome"}')]
    assert [texts([row], DEEPSEEK) for row in rows] == [wanted] * 2


def test_strings_and_preferences_have_tools_too():
    one = {"prompt": "Weather?", "completion": "Sunny.", "tools": [WEATHER]}
    conversation = {"messages": [USER, ANSWER], "tools": [WEATHER]}
    other = turn(call("weather", {"city": "Bonn"}))
    preference = {"prompt": [USER], "chosen": [ANSWER], "rejected": [other], "tools": [WEATHER]}
    assert texts([one]) == texts([conversation])
    assert texts([preference]) == texts([{"messages": [USER, other], "tools": [WEATHER]}])
    assert "Bonn" in row_texts([{"messages": [USER, other]}], "forget")[0]


@pytest.mark.parametrize(
    ("row", "options", "message"),
    [
        ({"messages": [USER, ANSWER], "tools": "not json"}, {}, "`tools` to be a list of JSON schemas"),
        ({"messages": [USER, ANSWER], "tools": [3]}, {}, "`tools` to be a list of JSON schemas"),
        ({"messages": [USER, turn(call("f", "secret"))]}, {}, "arguments that are a str"),
        ({"messages": [USER, turn(call("f", "[1]"))]}, {}, "arguments that are a str"),
        ({"messages": [USER, {"role": "assistant", "tool_calls": ["secret"]}]}, {}, "no list of mappings"),
        ({"messages": [USER, {"role": "assistant", "content": " "}]}, {}, "only whitespace"),
        ({"prompt": "a", "completion": "b", "tools": [WEATHER]}, {"template": "{prompt}{completion}"}, "without the"),
        ({"messages": [USER, ANSWER]}, {"chat_template": "{{ messages[0].content + 1 }}"}, "refuses with a TypeError"),
    ],
)
def test_what_cannot_be_read_is_refused_and_not_quoted(row, options, message):
    with pytest.raises(ValueError, match=rf"(?s)Expected .*{message}.*What to do: ") as error:
        texts([row], **options)
    assert "row 0 of the forget set" in str(error.value) and "secret" not in str(error.value)
