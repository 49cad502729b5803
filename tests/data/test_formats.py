"""Which format a set's columns spell, what a row of each becomes, and the error of each way to get it wrong."""

import pytest

from hf_unlearn.data.formats import Row, RowFormat, detect_format, format_columns, to_row

USER, ASSISTANT = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
REFUSAL = {"role": "assistant", "content": "no"}
SECRET = "zyzzyva"  # stands for forget data, which no message may repeat

DETECTED = [
    (["prompt", "completion"], RowFormat.PROMPT_COMPLETION),
    (["id", "completion", "prompt", "alternate"], RowFormat.PROMPT_COMPLETION),
    (["messages"], RowFormat.MESSAGES),
    (["messages", "alternate"], RowFormat.MESSAGES),
    (["text", "meta"], RowFormat.TEXT),
    (["prompt", "chosen", "rejected"], RowFormat.PREFERENCE),
    (["chosen", "rejected", "score"], RowFormat.IMPLICIT_PREFERENCE),
    (["input_ids", "labels", "attention_mask"], RowFormat.TOKENIZED),
    (["input_ids", "labels", "alternate_input_ids", "alternate_labels"], RowFormat.TOKENIZED),
    # The text that tokens were made from is dropped, as in plain Trainer.
    (["text", "input_ids", "labels"], RowFormat.TOKENIZED),
    (["prompt", "completion", "input_ids", "attention_mask", "labels"], RowFormat.TOKENIZED),
    (["messages", "tools", "input_ids", "labels"], RowFormat.TOKENIZED),
    (["messages", "tools"], RowFormat.MESSAGES),
]


@pytest.mark.parametrize(("columns", "expected"), DETECTED)
def test_format_is_read_from_the_columns(columns: list[str], expected: RowFormat) -> None:
    assert detect_format(columns, "forget") is expected


def test_function_calls_of_sharegpt_are_calls_of_tools() -> None:
    turns = [
        {"from": "human", "value": "q"},
        {"from": "function_call", "value": '{"name": "f", "arguments": {"x": 1}}'},
        {"from": "observation", "value": "2"},
        {"from": "function_call", "value": '[{"name": "f", "arguments": "{}"}, {"name": "g"}]'},
    ]
    row = to_row({"messages": turns}, RowFormat.MESSAGES, "forget")
    assert row.prompt[0] == USER and row.prompt[2] == {"role": "tool", "content": "2"}
    calls = [[call["function"] for call in turn["tool_calls"]] for turn in (row.prompt[1], *row.completion)]
    assert calls == [[{"name": "f", "arguments": {"x": 1}}], [{"name": "f", "arguments": {}}, {"name": "g"}]]


def test_format_columns_leave_out_what_no_format_reads() -> None:
    assert format_columns(RowFormat.PROMPT_COMPLETION, ["id", "completion", "prompt"]) == ["completion", "prompt"]


@pytest.mark.parametrize(
    ("columns", "unused"),
    [
        (["text", "messages"], "text"),
        (["prompt", "completion", "text"], "text"),
        (["prompt", "text"], "prompt"),
        (["prompt", "completion", "chosen", "rejected"], "chosen"),
        (["prompt", "chosen", "rejected", "alternate"], "alternate"),
    ],
)
def test_columns_of_two_formats_are_refused(columns: list[str], unused: str) -> None:
    with pytest.raises(ValueError, match=rf"(?s)one row format.*remove_columns\(\['({unused})'"):
        detect_format(columns, "forget")


@pytest.mark.parametrize(
    ("columns", "fix"),
    [
        (["question", "answer"], 'rename_columns({"question": "prompt", "answer": "completion"})'),
        (["Question", "Best Answer", "Source"], 'rename_columns({"Question": "prompt", "Best Answer": "completion"})'),
        (["prompt", "response"], 'rename_columns({"response": "completion"})'),
        (
            ["instruction", "input", "output"],
            'map(lambda row: {"prompt": "\\n".join(filter(None, [row["instruction"], row["input"]])), "completion": '
            """row["output"]}, remove_columns=['input', 'instruction', 'output'])""",
        ),
        (
            ["instruction", "context", "response"],
            '[row["context"], row["instruction"]])), "completion": row["response"]',
        ),
        (["id", "system_prompt", "question", "response"], '[row["system_prompt"], row["question"]]'),
        (["title", "context", "question", "answer"], '[row["context"], row["question"]]'),
        (["id", "input", "output"], 'rename_columns({"input": "prompt", "output": "completion"})'),
        (["query", "response"], 'rename_columns({"query": "prompt", "response": "completion"})'),
        (["conversations"], 'rename_columns({"conversations": "messages"})'),
        (["content"], 'rename_columns({"content": "text"})'),
        (["input_ids", "attention_mask"], "add `labels`"),
        (["a", "b"], 'rename_columns({"<question>": "prompt", "<answer>": "completion"})'),
    ],
)
def test_missing_columns_name_what_came_and_the_call_to_make(columns: list[str], fix: str) -> None:
    with pytest.raises(ValueError) as error:
        detect_format(columns, "retain")
    assert fix in str(error.value)
    assert str(columns) in str(error.value)
    assert "rejected" not in str(error.value)  # preference rows are no way to fill a retain set


@pytest.mark.parametrize("role", ["retain", "holdout"])
@pytest.mark.parametrize(("columns", "new"), [(["prompt"], "completion"), ([], "messages")])
def test_preference_rows_are_forget_rows(role: str, columns: list[str], new: str) -> None:
    with pytest.raises(ValueError, match=rf"(?s)one answer per row in the {role} set.*'chosen': '{new}'"):
        detect_format([*columns, "chosen", "rejected"], role)
    assert detect_format([*columns, "chosen", "rejected"], "eval")


def test_an_unknown_set_names_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean 'retain'"):
        detect_format(["text"], "retian")


ROWS = [
    (RowFormat.PROMPT_COMPLETION, {"prompt": "q", "completion": "a"}, Row("q", "a")),
    (RowFormat.PROMPT_COMPLETION, {"prompt": "", "completion": "a", "alternate": "no"}, Row("", "a", "no")),
    (RowFormat.PROMPT_COMPLETION, {"prompt": "q", "completion": "a", "alternate": ""}, Row("q", "a", "")),
    (RowFormat.PROMPT_COMPLETION, {"prompt": [USER], "completion": [ASSISTANT]}, Row([USER], [ASSISTANT])),
    (RowFormat.MESSAGES, {"messages": [USER, ASSISTANT]}, Row([USER], [ASSISTANT])),
    (
        RowFormat.MESSAGES,
        {"messages": [USER, ASSISTANT, USER, ASSISTANT], "alternate": "no"},
        Row([USER, ASSISTANT, USER], [ASSISTANT], [REFUSAL]),
    ),
    (RowFormat.MESSAGES, {"messages": [USER, ASSISTANT], "alternate": [REFUSAL]}, Row([USER], [ASSISTANT], [REFUSAL])),
    # ShareGPT's speakers.
    (
        RowFormat.MESSAGES,
        {"messages": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
        Row([USER], [ASSISTANT]),
    ),
    (RowFormat.TEXT, {"text": "a"}, Row("", "a")),
    (RowFormat.TEXT, {"text": "a", "alternate": "b"}, Row("", "a", "b")),
    (RowFormat.PREFERENCE, {"prompt": "q", "chosen": "no", "rejected": "a"}, Row("q", "a", "no")),
    (
        RowFormat.PREFERENCE,
        {"prompt": [USER], "chosen": [REFUSAL], "rejected": [ASSISTANT]},
        Row([USER], [ASSISTANT], [REFUSAL]),
    ),
    # A prompt as a string beside whole conversations, as UltraFeedback has it.
    (
        RowFormat.PREFERENCE,
        {"prompt": "q", "chosen": [USER, REFUSAL], "rejected": [USER, ASSISTANT]},
        Row([USER], [ASSISTANT], [REFUSAL]),
    ),
    (
        RowFormat.IMPLICIT_PREFERENCE,
        {"chosen": [USER, REFUSAL], "rejected": [USER, ASSISTANT]},
        Row([USER], [ASSISTANT], [REFUSAL]),
    ),
]


@pytest.mark.parametrize(("row_format", "example", "expected"), ROWS)
def test_row_of_every_format(row_format: RowFormat, example: dict, expected: Row) -> None:
    row = to_row(example, row_format, "forget")
    assert row == expected
    assert row.is_conversational == isinstance(expected.completion, list)


def test_keys_that_arrow_filled_with_none_are_dropped() -> None:
    example = {"messages": [{**USER, "name": None}, {**ASSISTANT, "tool_calls": None}]}
    assert to_row(example, RowFormat.MESSAGES, "forget") == Row([USER], [ASSISTANT])


def test_a_turn_that_calls_a_tool_needs_no_content_in_the_prompt() -> None:
    call = {"role": "assistant", "content": None, "tool_calls": [{"name": "f"}]}
    row = to_row({"messages": [USER, call, ASSISTANT]}, RowFormat.MESSAGES, "forget")
    assert row.prompt == [USER, {"role": "assistant", "tool_calls": [{"name": "f"}]}]


SECRET_TURN = {"role": "user", "content": SECRET}
REFUSED = [
    (RowFormat.PROMPT_COMPLETION, {"prompt": SECRET, "completion": None}, "`completion` to be.*it is missing"),
    (RowFormat.PROMPT_COMPLETION, {"prompt": None, "completion": SECRET}, "`prompt` to be.*it is missing"),
    (RowFormat.PROMPT_COMPLETION, {"prompt": SECRET, "completion": ""}, "empty or only whitespace"),
    (RowFormat.PROMPT_COMPLETION, {"prompt": SECRET, "completion": " \n\u3000"}, "empty or only whitespace"),
    (RowFormat.PROMPT_COMPLETION, {"prompt": SECRET, "completion": 1945}, "a string or a list of.*it is a int"),
    (RowFormat.PROMPT_COMPLETION, {"prompt": SECRET, "completion": [ASSISTANT]}, "`prompt` of type str"),
    (RowFormat.PROMPT_COMPLETION, {"prompt": "q", "completion": "a", "alternate": [REFUSAL]}, "`alternate` of type"),
    (RowFormat.PROMPT_COMPLETION, {"prompt": [SECRET_TURN], "completion": [SECRET_TURN]}, "nothing but assistant"),
    (RowFormat.PROMPT_COMPLETION, {"prompt": [], "completion": [ASSISTANT]}, "an empty list"),
    (RowFormat.PROMPT_COMPLETION, {"prompt": [SECRET], "completion": [ASSISTANT]}, "`role` and a `content`"),
    (RowFormat.TEXT, {"text": " "}, "an answer in `text`.*only whitespace"),
    (RowFormat.TEXT, {"text": [SECRET_TURN, ASSISTANT]}, "`text` to be a string"),
    (RowFormat.MESSAGES, {"messages": SECRET}, "`messages` to be a list of messages"),
    (RowFormat.MESSAGES, {"messages": []}, "an empty list"),
    (RowFormat.MESSAGES, {"messages": [ASSISTANT, SECRET_TURN]}, "an assistant turn at the end"),
    (RowFormat.MESSAGES, {"messages": [ASSISTANT]}, "holds only the answer"),
    (RowFormat.MESSAGES, {"messages": [SECRET_TURN, {"role": "assistant", "content": " "}]}, "only whitespace"),
    (RowFormat.MESSAGES, {"messages": [{"role": "user", "content": [SECRET]}, ASSISTANT]}, "content is a list"),
    (RowFormat.MESSAGES, {"messages": [{"from": "function_call", "value": SECRET}, ASSISTANT]}, "`role` and a"),
    (RowFormat.PREFERENCE, {"prompt": "q", "chosen": "no", "rejected": " "}, "an answer in `rejected`"),
    (RowFormat.PREFERENCE, {"prompt": "q", "chosen": "", "rejected": SECRET}, "an answer in `chosen`"),
    (RowFormat.PREFERENCE, {"prompt": [USER], "chosen": "no", "rejected": SECRET}, "`prompt` of type list"),
    (RowFormat.IMPLICIT_PREFERENCE, {"chosen": SECRET, "rejected": SECRET + "s"}, "add a `prompt` column"),
    (RowFormat.IMPLICIT_PREFERENCE, {"chosen": [ASSISTANT], "rejected": [REFUSAL]}, "holds only the answer"),
    # The turns part company before the last answer, so one answer would hold a user's turn.
    (
        RowFormat.IMPLICIT_PREFERENCE,
        {"chosen": [USER, REFUSAL], "rejected": [USER, ASSISTANT, SECRET_TURN, ASSISTANT]},
        "nothing but assistant",
    ),
    (RowFormat.TOKENIZED, {"input_ids": [1], "labels": [1]}, "already tokenised"),
]


@pytest.mark.parametrize(("row_format", "example", "message"), REFUSED)
def test_refused_row_is_named_by_its_place_and_not_quoted(row_format: RowFormat, example: dict, message: str) -> None:
    with pytest.raises(ValueError, match=f"(?s){message}") as error:
        to_row(example, row_format, "forget", index=7)
    assert "row 7 of the forget set" in str(error.value)
    assert SECRET not in str(error.value)
    assert [part in str(error.value) for part in ("Expected", "Got", "Why it matters", "What to do")] == [True] * 4
