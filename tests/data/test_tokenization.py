"""Whole sets of every kind, what is cut from them, and the errors of sets and settings. Rows: test_encoding.py."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from datasets import Dataset

from fixtures.tokenizer import BOS, EOS, PAD, SlowTokenizer, make_chat_tokenizer, make_tokenizer
from hf_unlearn.data import tokenization
from hf_unlearn.data.tokenization import TokenizedStream, check_tokenizer, tokenize_rows

SECRET = "zyzzyva"  # stands for forget data, which no message may repeat
TEMPLATE = "Q: {prompt}\nA: {completion}"

A, B = 69, 70  # ids of the letters a and b


def rows_of(dataset: Any) -> list[dict[str, list[int]]]:
    return [dict(row) for row in dataset]


def tokenize_one(example: dict[str, Any], tokenizer: Any, **options: Any) -> Any:
    """A set of one row."""
    return tokenize_rows([example], tokenizer, **({"set_name": "forget", "max_length": None} | options))


def test_missing_alternates_say_how_to_supply_them() -> None:
    tokenizer = make_tokenizer()
    for example in ({"prompt": "a", "completion": "b"}, {"input_ids": [5, 6], "labels": [5, 6]}):
        with pytest.raises(ValueError, match=r"(?s)an alternate answer in every row.*`alternate` column.*`chosen`"):
            tokenize_one(example, tokenizer, alternates=True)
    with pytest.raises(ValueError, match="row 1 of the forget set, which has none"):
        rows = [{"text": "a", "alternate": "b"}, {"text": "a", "alternate": None}]
        tokenize_rows(rows, tokenizer, set_name="forget", max_length=None, alternates=True)


EXAMPLES = [{"prompt": "a", "completion": "b" * size, "id": size} for size in (1, 2, 3)]
TOKENIZED = [
    {"input_ids": [BOS, A, *[B] * size, EOS], "labels": [-100, -100, *[B] * size, EOS], "answer_start": 2}
    for size in (1, 2, 3)
]


class MapStyle(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return len(EXAMPLES)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return EXAMPLES[index]


class Stream(torch.utils.data.IterableDataset):
    epoch = 0

    def __iter__(self) -> Iterator[dict[str, Any]]:
        yield from EXAMPLES[self.epoch :]

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch


class SizedStream(torch.utils.data.IterableDataset):
    def __init__(self, examples: list[dict[str, Any]]) -> None:
        self.examples = examples

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.examples)

    def __len__(self) -> int:
        return len(self.examples)


@pytest.mark.parametrize("make", [list, tuple, lambda rows: MapStyle(), Dataset.from_list])
def test_every_set_with_a_length_becomes_a_dataset(make: Any) -> None:
    tokenized = tokenize_rows(make(EXAMPLES), make_tokenizer(), set_name="retain", max_length=None)
    assert isinstance(tokenized, Dataset)
    assert tokenized.column_names == ["input_ids", "labels", "answer_start"]
    assert rows_of(tokenized) == TOKENIZED


def test_format_of_a_dataset_has_no_influence() -> None:
    dataset = Dataset.from_list(EXAMPLES).with_format("torch")
    tokenized = tokenize_rows(dataset, make_tokenizer(), set_name="retain", max_length=None)
    assert rows_of(tokenized) == TOKENIZED


def test_several_processes(tmp_path: Path) -> None:
    Dataset.from_list(EXAMPLES).save_to_disk(tmp_path / "rows")
    dataset = datasets.load_from_disk(tmp_path / "rows")
    tokenized = tokenize_rows(dataset, make_tokenizer(), set_name="retain", max_length=None, num_proc=2)
    assert rows_of(tokenized) == TOKENIZED


@pytest.mark.parametrize("make", [make_tokenizer, make_chat_tokenizer, SlowTokenizer])
def test_fingerprint_follows_what_the_ids_follow_and_nothing_else(make: Any) -> None:
    dataset, tokenizer = Dataset.from_list(EXAMPLES), make()

    def fingerprint(rows: Dataset = dataset, tokenizer: Any = tokenizer, **options: Any) -> str:
        options = {"set_name": "forget", "max_length": 90} | options
        return tokenize_rows(rows, tokenizer, **options)._fingerprint

    first = fingerprint()
    tokenizer("another text that leaves no trace in the tokenizer")
    assert fingerprint() == fingerprint(tokenizer=make()) == first
    assert (
        len({first, fingerprint(max_length=80), fingerprint(template=TEMPLATE), fingerprint(dataset.select([0]))}) == 4
    )


def test_datasets_stream_stays_a_stream() -> None:
    read = []

    def generate() -> Iterator[dict[str, Any]]:
        for example in EXAMPLES * 100:
            read.append(example["id"])
            yield example

    dataset = datasets.IterableDataset.from_generator(generate)
    tokenized = tokenize_rows(dataset, make_tokenizer(), set_name="forget", max_length=None)
    assert isinstance(tokenized, datasets.IterableDataset)
    assert len(read) == 1  # only the first row, to see its format
    assert tokenized.column_names == ["input_ids", "labels", "answer_start"]
    assert rows_of(tokenized.take(3)) == TOKENIZED
    assert len(read) < len(EXAMPLES) * 100


def test_torch_stream_keeps_its_epochs_and_its_length() -> None:
    tokenized = tokenize_rows(Stream(), make_tokenizer(), set_name="forget", max_length=None)
    assert isinstance(tokenized, TokenizedStream)
    assert rows_of(tokenized) == TOKENIZED
    tokenized.set_epoch(2)
    assert rows_of(tokenized) == TOKENIZED[2:]
    with pytest.raises(TypeError):
        len(tokenized)
    sized = tokenize_rows(SizedStream(EXAMPLES), make_tokenizer(), set_name="forget", max_length=None)
    assert len(sized) == 3
    sized.set_epoch(2)  # a source without epochs goes on as it did
    assert rows_of(sized) == TOKENIZED


@pytest.mark.parametrize(
    "empty",
    [
        [],
        Dataset.from_dict({"text": []}),
        datasets.IterableDataset.from_generator(lambda: iter(())),
        SizedStream([]),
    ],
)
def test_an_empty_set_is_named(empty: Any) -> None:
    with pytest.raises(ValueError, match="at least one row in the holdout set"):
        list(tokenize_rows(empty, make_tokenizer(), set_name="holdout", max_length=None))


@pytest.mark.parametrize("rows", [datasets.DatasetDict(), "rows", [SECRET], {"train": []}])
def test_what_is_not_a_set_of_rows(rows: Any) -> None:
    with pytest.raises(ValueError, match=r"the forget set as a datasets\.Dataset or") as error:
        tokenize_rows(rows, make_tokenizer(), set_name="forget", max_length=None)
    assert SECRET not in str(error.value)


@pytest.mark.parametrize("stream", [False, True])
def test_rows_of_one_set_are_of_one_type(stream: bool) -> None:
    conversation = {
        "prompt": [{"role": "user", "content": SECRET}],
        "completion": [{"role": "assistant", "content": "a"}],
    }
    rows = [EXAMPLES[0], conversation]
    with pytest.raises(ValueError, match=r"(?s)to be a string, like its first.*row 1") as error:
        list(
            tokenize_rows(
                SizedStream(rows) if stream else rows, make_chat_tokenizer(), set_name="forget", max_length=None
            )
        )
    assert SECRET not in str(error.value)


def test_an_error_names_the_row_within_the_whole_set() -> None:
    rows = [*EXAMPLES * 500, {"prompt": "a", "completion": " "}]
    for given in (rows, Dataset.from_list(rows)):
        with pytest.raises(ValueError, match="row 1500 of the forget set"):
            tokenize_rows(given, make_tokenizer(), set_name="forget", max_length=None)


@pytest.fixture
def warnings_of_the_set(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    # transformers' loggers do not propagate by default, and caplog listens at the root.
    logger = logging.getLogger("hf_unlearn.data.checks")
    logger.addHandler(caplog.handler)
    with caplog.at_level(logging.WARNING, logger=logger.name):
        yield caplog
    logger.removeHandler(caplog.handler)


def test_what_is_cut_off_is_counted_once(warnings_of_the_set: pytest.LogCaptureFixture) -> None:
    rows = [{"prompt": "a", "completion": "b" * size} for size in (1, 2, 5)]
    tokenized = tokenize_rows(rows, make_tokenizer(), set_name="forget", max_length=4)
    assert rows_of(tokenized) == [
        {"input_ids": [BOS, A, B, EOS], "labels": [-100, -100, B, EOS], "answer_start": 2},
        {"input_ids": [BOS, A, B, B], "labels": [-100, -100, B, B], "answer_start": 2},
        {"input_ids": [BOS, A, B, B], "labels": [-100, -100, B, B], "answer_start": 2},
    ]
    message = "2 of 3 forget rows were longer than max_length=4; 5 answer tokens were cut off"
    assert {record.getMessage() for record in warnings_of_the_set.records} == {message}


def test_a_stream_says_once_that_it_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(tokenization.logger, "warning_once", said.append)
    rows = [{"prompt": "a", "completion": "b" * size} for size in (1, 5)]
    stream = datasets.IterableDataset.from_generator(lambda: iter(rows))
    cut = tokenize_rows(stream, make_tokenizer(), set_name="forget", max_length=4)
    assert [row["input_ids"] for row in cut] == [[BOS, A, B, EOS], [BOS, A, B, B]]
    assert len(said) == 1
    assert "The forget stream has rows longer than max_length=4" in said[0]


def test_nothing_cut_nothing_said(warnings_of_the_set: pytest.LogCaptureFixture) -> None:
    tokenize_rows(EXAMPLES, make_tokenizer(), set_name="forget", max_length=6)
    assert not warnings_of_the_set.records


def test_an_answer_that_is_cut_off_whole() -> None:
    rows = [{"prompt": "a", "completion": "b"}, *({"prompt": SECRET * n, "completion": "b"} for n in (1, 2))]
    with pytest.raises(ValueError, match=r"(?s)max_length=8\.\nGot: 2 rows, the first of them row 1") as error:
        tokenize_rows(rows, make_tokenizer(), set_name="forget", max_length=8)
    assert "the longest row has 17 tokens" in str(error.value)
    assert SECRET not in str(error.value)
    stream = tokenize_rows(SizedStream(rows), make_tokenizer(), set_name="forget", max_length=8)
    with pytest.raises(ValueError, match="the first of them row 1"):
        list(stream)


def test_tokenised_rows_lose_their_padding_and_nothing_else() -> None:
    rows = [
        {"input_ids": [PAD, PAD, 5, 6], "labels": [-100, -100, -100, 6], "attention_mask": [0, 0, 1, 1]},
        {"input_ids": [5, 6, PAD, PAD], "labels": [-100, 6, -100, -100], "attention_mask": [1, 1, 0, 0]},
        # A mask of `ids != pad` where pad is eos hides the end of the answer; its label says that it is real.
        {"input_ids": [5, 6, EOS, EOS], "labels": [-100, 6, EOS, -100], "attention_mask": [1, 1, 0, 0]},
        {"input_ids": [5, 6, EOS], "labels": [-100, 6, EOS], "attention_mask": [1, 1, 1]},
    ]
    expected = [[5, 6], [5, 6], [5, 6, EOS], [5, 6, EOS]]
    for given in (rows, Dataset.from_list(rows), [{k: torch.tensor(v) for k, v in row.items()} for row in rows]):
        tokenized = tokenize_rows(given, make_tokenizer(), set_name="forget", max_length=None)
        assert tokenized["input_ids"][:] == expected
        assert tokenized["labels"][:] == [[-100, *ids[1:]] for ids in expected]


def test_conversations_need_a_chat_template() -> None:
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    with pytest.raises(ValueError, match=r"(?s)a tokenizer with a chat template.*set tokenizer\.chat_template"):
        tokenize_one({"messages": messages}, make_tokenizer(), template=TEMPLATE)


@pytest.mark.parametrize(
    "template", ["", "{prompt}", "{completion}{prompt}", "{prompt}{prompt}{completion}", "{question} {completion}"]
)
def test_bad_template(template: str) -> None:
    with pytest.raises(ValueError, match="once each and in this order"):
        tokenize_one(EXAMPLES[0], make_tokenizer(), template=template)


@pytest.mark.parametrize("max_length", [0, 1, -1, 2.5])
def test_bad_max_length(max_length: Any) -> None:
    with pytest.raises(ValueError, match="max_length must be a whole number of at least 2"):
        tokenize_one(EXAMPLES[0], make_tokenizer(), max_length=max_length)


def test_tokenizer_needs_its_two_special_tokens() -> None:
    tokenizer = make_tokenizer()
    check_tokenizer(tokenizer)
    tokenizer.pad_token = None
    with pytest.raises(ValueError, match=r"tokenizer\.pad_token = tokenizer\.eos_token"):
        tokenize_rows(EXAMPLES, tokenizer, set_name="forget", max_length=None)
    tokenizer.eos_token = None
    with pytest.raises(ValueError, match="end-of-text token"):
        check_tokenizer(tokenizer)
