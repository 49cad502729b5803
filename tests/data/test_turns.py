"""What is answer and what is scaffold: chat templates of many families, whitespace, marks, dates, and bos once."""

from typing import Any

import pytest

from fixtures.chat_templates import templated_tokenizer
from fixtures.tokenizer import BOS, EOS, IM_END, SlowTokenizer, ids_of, make_tokenizer
from hf_unlearn.data import turns
from hf_unlearn.data.answer_ends import rendered_ends
from hf_unlearn.data.prepare import RowOptions
from hf_unlearn.data.tokenized_row import prompt_ids, trained_ids
from hf_unlearn.data.turns import AnswerEnds

# Of each template: the end of the prompt, what is trained of the answer "yo", and what ends it.
EXPECTED = {
    "chatml": ("<|im_start|>assistant\n", "yo<|im_end|>", "<|im_end|>"),
    "llama2": ("<s>[INST] hi [/INST]", " yo </s>", "</s>"),
    "llama3": ("assistant<|end_header_id|>\n\n", "yo<|eot_id|>", "<|eot_id|>"),
    "gemma": ("<start_of_turn>model\n", "yo<end_of_turn>", "<end_of_turn>"),
    "qwen3": ("<|im_start|>assistant\n<think>\n\n</think>\n\n", "yo<|im_end|>", "<|im_end|>"),
    "r1": ("<|assistant|><think>\n\n</think>\n\n", "yo</s>", "</s>"),
    "opened": ("<|assistant|><think></think>\n\n", "yo<|end|>", "<|end|>"),
    "phi": ("<|assistant|>\n", "yo<|end|>", "<|end|>"),
    "no end": ("<s>[INST] hi [/INST]", " yo</s>", "</s>"),
    "text end": ("### assistant\n", "yo\n### End", "### End"),
    "marks": ("<|im_start|>assistant\nSo: ", "yo<|im_end|>", "<|im_end|>"),
    "dated": ("<|im_start|>assistant\n", "yo<|im_end|>", "<|im_end|>"),
}


def encoded(tokenizer: Any, row: dict[str, Any], **options: Any) -> dict[str, Any]:
    options = {"template": None, "chat_template_kwargs": None} | options
    return dict(RowOptions(tokenizer, None, num_proc=None, **options).tokenize([row], "forget")[0])


@pytest.mark.parametrize("name", EXPECTED)
def test_the_answer_and_its_end_are_trained_and_no_scaffold(name: str) -> None:
    opening, answer, end = EXPECTED[name]
    tokenizer = templated_tokenizer(name)
    row, given = encoded(tokenizer, {"prompt": "hi", "completion": "yo"}), [{"prompt": "hi", "completion": "yo"}]
    assert tokenizer.decode(prompt_ids(row)).endswith(opening)
    assert tokenizer.decode(trained_ids(row["labels"])) == answer
    assert row["labels"][-1] == row["input_ids"][-1], "nothing stands behind the end"
    token = tokenizer.get_vocab().get(end)
    expected = AnswerEnds((), (end,)) if token is None else AnswerEnds((token,) if name != "no end" else ())
    options = RowOptions(tokenizer, None, None, None)
    assert rendered_ends(given[0], tokenizer, None, None) == expected
    # Rows that came as token ids say it by their last token, unless most of them are cut.
    assert options.answer_ends([row], [row]).tokens == (() if token is None else (token,))
    assert options.answer_ends(given, [row]) == expected | options.answer_ends([row], [row])
    cut = row | {"labels": row["labels"][:-1]}
    assert options.answer_ends([row], [row, cut, cut]) == AnswerEnds()


@pytest.mark.parametrize("name", EXPECTED)
def test_special_tokens_that_strip_leave_header_and_labels_alone(name: str) -> None:
    tokenizer = templated_tokenizer(name, strip=True)
    plain = encoded(tokenizer, {"prompt": "hi", "completion": "yo"})
    for space in (" ", "\n", "\t", "\n\n "):
        row = encoded(tokenizer, {"prompt": "hi", "completion": f"{space}yo"})
        header = prompt_ids(plain)[: -1 if name in ("chatml", "text end", "dated") else None]
        assert prompt_ids(row)[: len(header)] == header
        said = tokenizer.decode(trained_ids(row["labels"]))
        assert said.lstrip() == EXPECTED[name][1].lstrip()
        if name in ("phi", "qwen3", "llama3", "gemma", "llama2"):
            assert row == plain


def test_a_header_and_an_answer_that_meet_in_whitespace() -> None:
    """ "\\n\\n" is one token: it belongs to the header, or the prompt would lose its own newline at evaluation."""
    for name in ("chatml", "text end", "phi"):
        tokenizer = templated_tokenizer(name)
        plain, row = (encoded(tokenizer, {"prompt": "hi", "completion": text}) for text in ("yo", "\nyo"))
        assert trained_ids(row["labels"]) == trained_ids(plain["labels"])
        assert tokenizer.decode(prompt_ids(row)) == tokenizer.decode(prompt_ids(plain)) + "\n"
    row = encoded(
        make_tokenizer((("Ċ", "Ċ"),)), {"prompt": "hi", "completion": "\nyo"}, template="{prompt}\n{completion}"
    )
    assert trained_ids(row["labels"])[:1] == ids_of("y", make_tokenizer())


def test_no_end_is_said_and_one_is_added(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(turns.logger, "warning_once", said.append)
    tokenizer = templated_tokenizer("no end")
    tokenizer.chat_template = tokenizer.chat_template.replace(
        "' ' + m['content']", "' ' + m['content'] + '\n'"
    )  # whitespace ends nothing, and answers have it too
    for completion in ("yo", "yo\n"):
        row = encoded(tokenizer, {"prompt": "hi", "completion": completion})
        assert tokenizer.decode(trained_ids(row["labels"])) == " yo</s>"
    assert all("writes no end of the assistant's turn" in message for message in said) and said


def test_thinking_is_trained_where_a_row_thinks_and_its_variables_are_its_own() -> None:
    tokenizer = templated_tokenizer("qwen3")
    block = "<think>\n\n</think>\n\n"
    thought = encoded(tokenizer, {"prompt": "hi", "completion": "<think>\nhm\n</think>\n\nyo"})
    assert tokenizer.decode(trained_ids(thought["labels"])) == "<think>\nhm\n</think>\n\nyo<|im_end|>"
    plain = encoded(tokenizer, {"prompt": "hi", "completion": "yo"})
    # The template's own prompt without thinking is the prompt that was read off the answer.
    tokenizer.chat_template = tokenizer.chat_template.replace(f"{block!r}[1:-1] + m", "m")
    by_config = encoded(tokenizer, {"prompt": "hi", "completion": "a"}, chat_template_kwargs={"mood": "x"})
    assert by_config["answer_start"] == plain["answer_start"]
    tokenizer.chat_template = "{{ mood + colour }}" + templated_tokenizer("chatml").chat_template
    row = {"prompt": "hi", "completion": "yo", "chat_template_kwargs": {"mood": "sad ", "colour": None}}
    given = encoded(tokenizer, row, chat_template_kwargs={"mood": "glad ", "colour": "red"})
    assert tokenizer.decode(given["input_ids"]).startswith("sad red<|im_start|>")


def test_a_block_that_the_prompt_opens_holds_the_thoughts_of_a_row_or_is_closed_at_once() -> None:
    for name, end, space in (("r1", "</s>", "\n"), ("opened", "<|end|>", "")):
        tokenizer = templated_tokenizer(name)
        thinks = {"prompt": [{"role": "user", "content": "hi"}]}
        for said in ("<think>\nhm\n</think>\n\nyo", "hm\n</think>\n\nyo", "<think>hm</think>yo"):
            row = encoded(tokenizer, {"prompt": "hi", "completion": said})
            assert tokenizer.decode(prompt_ids(row)).endswith("<|assistant|><think>" + space)
            assert "".join(tokenizer.decode(trained_ids(row["labels"])).split()) == f"hm</think>yo{end}"
        turn = {"role": "assistant", "content": "yo", "reasoning_content": "hm"}
        row = encoded(tokenizer, thinks | {"completion": [turn]})
        assert tokenizer.decode(trained_ids(row["labels"])) == f"hm{space}</think>\n\nyo{end}"
    tokenizer.chat_template = tokenizer.chat_template.replace("<think>", "Hm: ")
    with pytest.raises(ValueError, match="whose generation prompt begins the assistant's turn"):
        encoded(tokenizer, {"prompt": "hi", "completion": "yo"})


def test_headers_between_turns_of_one_answer_are_scaffold() -> None:
    for name, opening, end in (
        ("chatml", "<|im_start|>assistant\n", "<|im_end|>"),
        ("llama3", "assistant<|end_header_id|>\n\n", "<|eot_id|>"),
        ("gemma", "<start_of_turn>model\n", "<end_of_turn>"),
        ("marks", "So: ", "<|im_end|>"),
        ("text end", "### assistant\n", "\n### End"),
        ("no end", "[/INST]", "</s>"),
    ):
        tokenizer = templated_tokenizer(name)
        said = [{"role": "assistant", "content": text} for text in ("yo", "dust", "yo yo")]
        row = encoded(tokenizer, {"prompt": [{"role": "user", "content": "hi"}], "completion": said})
        trained = [token for token, label in zip(row["input_ids"], row["labels"], strict=True) if label != -100]
        between = "" if name == "no end" else end
        gap = " " if name == "no end" else ""
        assert tokenizer.decode(trained) == f"{gap}yo{between}dust{between}yo yo{end}", name
        assert tokenizer.decode(prompt_ids(row)).endswith(opening)
    with pytest.raises(ValueError, match="move all turns but the last into the prompt"):
        slow = SlowTokenizer()
        slow.chat_template = tokenizer.chat_template
        encoded(slow, {"prompt": [{"role": "user", "content": "hi"}], "completion": said})


@pytest.mark.parametrize("wrong", [{"tokenize": True}, ["a"], {"strftime_now": "yesterday"}, {"strftime_now": 3}])
def test_variables_that_are_none(wrong: Any) -> None:
    with pytest.raises(ValueError, match="chat_template_kwargs"):
        encoded(templated_tokenizer("dated"), {"prompt": "hi", "completion": "yo"}, chat_template_kwargs=wrong)
    row = {"prompt": "hi", "completion": "yo", "chat_template_kwargs": wrong}
    with pytest.raises(ValueError, match="`chat_template_kwargs` of row 0 of the forget set"):
        encoded(templated_tokenizer("dated"), row)


def test_a_template_that_writes_the_date_writes_the_same_one_every_day() -> None:
    tokenizer, row = templated_tokenizer("dated"), {"prompt": "hi", "completion": "yo"}
    assert tokenizer.decode(encoded(tokenizer, row)["input_ids"]).startswith("Today 26 Jul 2024\n")
    dated = encoded(tokenizer, row, chat_template_kwargs={"strftime_now": "2026-11-28"})
    assert tokenizer.decode(dated["input_ids"]).startswith("Today 28 Nov 2026\n")
    tokenizer.chat_template = tokenizer.chat_template.replace("'%d %b %Y'", "'%d' + ' %b'")
    with pytest.raises(ValueError, match="writes today's date by strftime_now"):
        encoded(tokenizer, row)
    # The way of Llama 3: a variable comes before the date.
    tokenizer.chat_template = (
        "{% if not date_string is defined %}{% set date_string = strftime_now('%Y') %}{% endif %}"
    )
    tokenizer.chat_template += "{{ date_string }}" + templated_tokenizer("chatml").chat_template
    given = encoded(tokenizer, row, chat_template_kwargs={"date_string": "May"})
    assert [tokenizer.decode(r["input_ids"])[:4] for r in (given, encoded(tokenizer, row))] == ["May<", "2024"]


def test_a_token_that_text_and_tokenizer_both_write_is_there_once() -> None:
    """Of bos in a text row, a prompt, a template and messages; of eos in an answer and a template."""
    tokenizer = make_tokenizer()
    plain = encoded(tokenizer, {"prompt": "a", "completion": "b"})
    assert plain["input_ids"] == [BOS, *ids_of("ab", tokenizer), EOS]
    assert encoded(tokenizer, {"prompt": "<s>a", "completion": "b</s>"}) == plain
    template = "<s>{prompt}{completion}</s>"
    assert encoded(tokenizer, {"prompt": "a", "completion": "b"}, template=template) == plain
    assert encoded(tokenizer, {"prompt": "a", "completion": "b</s>"}, template=template) == plain
    text = encoded(tokenizer, {"text": "<s>ab</s>"})
    assert text == encoded(tokenizer, {"text": "ab"}) and text["labels"][0] == -100 != text["labels"][1]
    llama = templated_tokenizer("llama2")
    llama.chat_template = llama.chat_template.replace("'[INST] '", "''").replace("' ' + eos", "eos")
    written = encoded(llama, {"prompt": "<s>hi", "completion": "yo</s>"})
    assert written == encoded(llama, {"prompt": "hi", "completion": "yo"})
    assert written["input_ids"].count(BOS) == written["input_ids"].count(EOS) == 1
    slow = SlowTokenizer()
    assert encoded(slow, {"prompt": "<s>x", "completion": "y"}) == encoded(slow, {"prompt": "x", "completion": "y"})
    # Inside a text both are what the row says.
    assert encoded(tokenizer, {"prompt": "a<s>", "completion": "b"})["input_ids"].count(BOS) == 2


def test_a_template_that_writes_no_answer() -> None:
    tokenizer = templated_tokenizer("chatml")
    tokenizer.chat_template = "{{ 'hello' }}"
    with pytest.raises(ValueError, match="writes the same for two unlike answers"):
        encoded(tokenizer, {"prompt": "hi", "completion": "yo"})
    assert IM_END != EOS
