"""Token ids and labels of single rows, worked out by hand, for each kind of text and of tokenizer, and each error."""

from typing import Any

import pytest
from tokenizers import processors

from fixtures.tokenizer import BOS, EOS, IM_END, IM_START, SlowTokenizer, ids_of, make_chat_tokenizer, make_tokenizer
from hf_unlearn.data.tokenization import tokenize_rows
from hf_unlearn.data.tokenized_row import answer_ids, prompt_ids

SECRET = "zyzzyva"  # stands for forget data, which no message may repeat
TEMPLATE = "Q: {prompt}\nA: {completion}"

# The byte-level alphabet begins at "!", so the id of an ASCII character is its code - 28.
A, B, C, X, COLON = 69, 70, 71, 92, 30


def one(example: dict[str, Any], tokenizer: Any, **options: Any) -> dict[str, list[int]]:
    """The only row of a set, tokenised."""
    options = {"set_name": "forget", "max_length": None} | options
    return dict(tokenize_rows([example], tokenizer, **options)[0])


def test_joined_strings() -> None:
    row = one({"prompt": "a:", "completion": "bc"}, make_tokenizer())
    assert row == {"input_ids": [BOS, A, COLON, B, C, EOS], "labels": [-100, -100, -100, B, C, EOS], "answer_start": 3}
    assert prompt_ids(row) == [BOS, A, COLON]
    assert answer_ids(row) == [B, C, EOS]


def test_a_token_that_spans_the_boundary_is_answer() -> None:
    tokenizer = make_tokenizer(((":", "Ġ"), (":Ġ", "b")))
    spanning = len(tokenizer) - 1  # ": b", the last merge
    row = one({"prompt": "a: ", "completion": "bc"}, tokenizer)
    assert row == {
        "input_ids": [BOS, A, spanning, C, EOS],
        "labels": [-100, -100, spanning, C, EOS],
        "answer_start": 2,
    }
    # The same tokens with the boundary behind the merge: now it is prompt.
    row = one({"prompt": "a: b", "completion": "c"}, tokenizer)
    assert row == {"input_ids": [BOS, A, spanning, C, EOS], "labels": [-100, -100, -100, C, EOS], "answer_start": 3}


def test_characters_of_several_tokens_belong_to_their_side_whole() -> None:
    tokenizer = make_tokenizer()
    smile = tokenizer("😀", add_special_tokens=False)["input_ids"]
    assert len(smile) == 4
    row = one({"prompt": "é😀", "completion": "😀é"}, tokenizer)
    accent = tokenizer("é", add_special_tokens=False)["input_ids"]
    assert prompt_ids(row) == [BOS, *accent, *smile]
    assert answer_ids(row) == row["labels"][7:] == [*smile, *accent, EOS]


def test_text_is_all_answer_and_always_plain() -> None:
    expected = {"input_ids": [BOS, A, B, EOS], "labels": [-100, A, B, EOS], "answer_start": 1}
    assert one({"text": "ab"}, make_tokenizer(), template=TEMPLATE) == expected
    ended = {"input_ids": [BOS, A, B, IM_END], "labels": [-100, A, B, IM_END], "answer_start": 1}
    assert one({"text": "ab"}, make_chat_tokenizer()) == ended


def test_eos_that_is_there_is_not_repeated() -> None:
    row = one({"prompt": "a", "completion": "b</s>"}, make_tokenizer())
    assert row == {"input_ids": [BOS, A, B, EOS], "labels": [-100, -100, B, EOS], "answer_start": 2}


def test_a_tokenizer_that_ends_texts_itself() -> None:
    tokenizer = make_tokenizer()
    ending = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", BOS), ("</s>", EOS)])
    tokenizer.backend_tokenizer.post_processor = ending
    row = one({"prompt": "a", "completion": "b", "alternate": ""}, tokenizer, alternates=True)
    assert row == {
        "input_ids": [BOS, A, B, EOS],
        "labels": [-100, -100, B, EOS],
        "answer_start": 2,
        "alternate_input_ids": [BOS, A, EOS],
        "alternate_labels": [-100, -100, EOS],
    }


def test_template_takes_braces_for_what_they_are() -> None:
    tokenizer = make_tokenizer()
    row = one({"prompt": "{completion}", "completion": "{prompt}{0}"}, tokenizer, template=TEMPLATE + "!")
    assert prompt_ids(row) == [BOS, *ids_of("Q: {completion}\nA: ", tokenizer)]
    assert answer_ids(row) == [*ids_of("{prompt}{0}!", tokenizer), EOS]
    assert row["labels"] == [-100] * len(prompt_ids(row)) + answer_ids(row)


def chat_ids(role: str, text: str, tokenizer: Any) -> list[int]:
    return [IM_START, *ids_of(f"{role}\n{text}", tokenizer), IM_END, *ids_of("\n", tokenizer)]


def test_chat_template_keeps_its_end_of_turn_trained_where_it_is_the_padding_token() -> None:
    tokenizer = make_chat_tokenizer()
    assert tokenizer.pad_token_id == tokenizer.eos_token_id == IM_END
    prompt = [*chat_ids("user", "hi", tokenizer), IM_START, *ids_of("assistant\n", tokenizer)]
    answer = [*ids_of("yo", tokenizer), IM_END]  # the newline that the template writes behind it is no answer
    expected = {"input_ids": prompt + answer, "labels": [-100] * len(prompt) + answer, "answer_start": len(prompt)}
    user, assistant = {"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}
    assert one({"messages": [user, assistant]}, tokenizer) == expected
    assert one({"messages": [user, assistant]}, tokenizer, template=TEMPLATE) == expected
    assert one({"prompt": [user], "completion": [assistant]}, tokenizer) == expected
    assert one({"prompt": "hi", "completion": "yo"}, tokenizer) == expected
    # A template given for strings goes before the chat template; only then does the tokenizer add its own tokens.
    row = one({"prompt": "hi", "completion": "yo"}, tokenizer, template="{prompt}{completion}")
    assert row["input_ids"] == [BOS, *ids_of("hiyo", tokenizer), IM_END]


def test_earlier_turns_of_the_assistant_are_prompt() -> None:
    tokenizer = make_chat_tokenizer()
    turns = [("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "x")]
    row = one({"messages": [{"role": role, "content": text} for role, text in turns]}, tokenizer)
    assert answer_ids(row) == [X, IM_END]
    assert row["labels"].count(-100) == len(prompt_ids(row))


def test_slow_tokenizer() -> None:
    tokenizer = SlowTokenizer()
    letter = tokenizer.convert_tokens_to_ids
    row = one({"prompt": "xa", "completion": "b y"}, tokenizer)
    assert row["input_ids"] == [BOS, *map(letter, ["x", "ab", " ", "y"]), EOS]
    assert row["labels"] == [-100, -100, *map(letter, ["ab", " ", "y"]), EOS]
    # A prompt that goes on like the answer: its own length decides.
    row = one({"prompt": "x", "completion": "xx", "alternate": ""}, tokenizer, alternates=True)
    assert row["labels"] == [-100, -100, letter("x"), letter("x"), EOS]
    assert row["alternate_labels"] == [-100, -100, EOS]


def test_alternates_share_the_prompt() -> None:
    tokenizer = make_tokenizer()
    for example in (
        {"prompt": "a", "completion": "b", "alternate": "c"},
        {"prompt": "a", "rejected": "b", "chosen": "c"},
    ):
        row = one(example, tokenizer, alternates=True)
        assert row == {
            "input_ids": [BOS, A, B, EOS],
            "labels": [-100, -100, B, EOS],
            "answer_start": 2,
            "alternate_input_ids": [BOS, A, C, EOS],
            "alternate_labels": [-100, -100, C, EOS],
        }
        assert sorted(one(example, tokenizer)) == ["answer_start", "input_ids", "labels"]
    ended = one({"prompt": "a", "completion": "b", "alternate": ""}, tokenizer, alternates=True)
    assert ended["alternate_labels"] == [-100, -100, EOS]
    # Nobody asked for it, so nobody minds that it is no text.
    assert one({"prompt": "a", "completion": "b", "alternate": 3}, tokenizer)["labels"] == [-100, -100, B, EOS]


def test_tokenised_rows_need_no_tokenizer_and_keep_their_alternates() -> None:
    row = {"input_ids": [5, 6], "labels": [-100, 6], "alternate_input_ids": [5, 7], "alternate_labels": [-100, 7]}
    assert one(row, None, alternates=True) == row | {"answer_start": 1}
    with pytest.raises(ValueError, match="a tokenizer, for the forget set's rows of text"):
        one({"text": "a"}, None)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"input_ids": [5, 6, 7], "labels": [-100, 6]}, "3 ids, 2 labels and 3 mask entries"),
        ({"input_ids": [5, 6], "labels": [6, -100]}, r"shifted ones, perhaps"),
        ({"input_ids": [5, 999], "labels": [-100, 999]}, "ids from 5 to 999 for a vocabulary of 261 tokens"),
        ({"input_ids": [-1, 6], "labels": [-1, 6]}, "ids from -1 to 6"),
        ({"input_ids": [], "labels": []}, "not a flat list of integers"),
        ({"input_ids": [[5, 6]], "labels": [[5, 6]]}, "not a flat list of integers"),
        ({"input_ids": [5.0, 6.0], "labels": [5.0, 6.0]}, "not a flat list of integers"),
        ({"input_ids": [5, 6], "labels": None}, "not a flat list of integers"),
        ({"input_ids": [5, 6, 7], "labels": [-100, -100, 7], "attention_mask": [1, 0, 1]}, "zeros between its ones"),
        (
            {"input_ids": [5, 6], "labels": [-100, -100]},
            "1 rows, the first of them row 0, whose `labels` are all -100",
        ),
        ({"input_ids": [5, 6], "labels": [5, -100]}, "1 rows, the first of them row 0, whose `labels` are all -100"),
    ],
)
def test_bad_tokenised_rows(row: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        one(row, make_tokenizer())


def test_a_chat_template_that_rewrites_the_prompt() -> None:
    tokenizer = make_chat_tokenizer()
    tokenizer.chat_template = tokenizer.chat_template.replace("'<|im_start|>assistant\n'", "'<|im_start|>model\n'")
    with pytest.raises(
        ValueError, match="a chat template whose generation prompt begins the assistant's turn"
    ) as error:
        one({"prompt": SECRET, "completion": SECRET}, tokenizer)
    assert SECRET not in str(error.value)


def test_a_chat_template_that_refuses_a_row() -> None:
    tokenizer = make_chat_tokenizer()
    tokenizer.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(ValueError, match=r"row 0 of the forget set, which it refuses with a TemplateError"):
        one({"prompt": SECRET, "completion": SECRET}, tokenizer)
