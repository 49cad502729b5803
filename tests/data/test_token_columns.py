"""Rows that come tokenised, checked and counted as arrays: the same as one row after another, wherever they lie."""

import random
from typing import Any

import datasets
import pytest

from hf_unlearn.data.tokenization import tokenize_rows

FIRST_ID, VOCABULARY = 3, 50
COUNTED = ("input_ids", "labels", "answer_start")


def padded_rows(*, left: bool) -> list[dict[str, list[int]]]:
    """Rows of one width, of 2 to 9 tokens, some of them with an untrained turn in their answer."""
    draw, rows = random.Random(5), []
    for _ in range(40):
        ids = [draw.randrange(FIRST_ID, VOCABULARY) for _ in range(draw.randrange(2, 10))]
        start = draw.randrange(1, min(len(ids), 7))
        after = [token if draw.random() < 0.7 else -100 for token in ids[start + 1 :]]
        labels = [-100] * start + ids[start : start + 1] + after
        row = {"input_ids": (ids, 0), "labels": (labels, -100), "attention_mask": ([1] * len(ids), 0)}
        pads = {name: [fill] * (9 - len(ids)) for name, (_, fill) in row.items()}
        rows.append({name: pads[name] * left + values + pads[name] * (not left) for name, (values, _) in row.items()})
    return rows


def one_by_one(rows: list[dict[str, list[int]]], max_length: int | None) -> list[dict[str, Any]]:
    """The plain way."""
    expected = []
    for row in rows:
        real = [place for place, mask in enumerate(row["attention_mask"]) if mask]
        ids, labels = ([row[name][place] for place in real] for name in ("input_ids", "labels"))
        start = next(place for place, label in enumerate(labels) if label != -100)
        expected.append(dict(zip(COUNTED, (ids[:max_length], labels[:max_length], start), strict=True)))
    return expected


def containers(rows: list[dict[str, list[int]]]) -> dict[str, Any]:
    """The same rows in every shape in which Arrow may hold them."""
    listed = datasets.Dataset.from_list(rows)

    def typed(make: Any) -> datasets.Dataset:
        return listed.cast(datasets.Features({name: make(name) for name in listed.column_names}))

    return {
        "a list": rows,
        "in 64 bits": listed,
        "in 32 bits": typed(lambda name: datasets.List(datasets.Value("int8" if "mask" in name else "int32"))),
        "large lists": typed(lambda name: datasets.LargeList(datasets.Value("int64"))),
        "of one width": typed(lambda name: datasets.List(datasets.Value("int32"), length=9)),
        "selected": datasets.Dataset.from_list(rows[::-1]).select(range(39, -1, -1)),
        "a slice": datasets.concatenate_datasets([listed, listed]).select(range(40, 80)),
        "in parts": datasets.concatenate_datasets([listed.select(range(7)), listed.select(range(7, 40))]),
    }


@pytest.mark.parametrize(("left", "max_length"), [(False, None), (True, 9), (False, 8)])
def test_rows_are_unpadded_and_cut_as_one_by_one(left, max_length):
    rows = padded_rows(left=left)
    expected = one_by_one(rows, max_length)
    for name, given in containers(rows).items():
        tokenized = tokenize_rows(given, None, set_name="forget", max_length=max_length)
        assert list(tokenized) == expected, name
        assert tokenized.features["input_ids"] == datasets.List(datasets.Value("int32"))


def test_a_mask_that_some_rows_lack():
    rows = padded_rows(left=False)
    unmasked = {name: rows[0][name][:2] for name in ("input_ids", "labels")} | {"attention_mask": None}
    unmasked["labels"] = [-100, unmasked["input_ids"][1]]
    both = datasets.Dataset.from_list([unmasked, *rows[1:]])
    tokenized = tokenize_rows(both, None, set_name="forget", max_length=None)
    assert list(tokenized)[1:] == one_by_one(rows[1:], None)
    assert tokenized[0]["input_ids"] == unmasked["input_ids"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": [-100] * 8}, "row 3 .* 9 ids, 8 labels and 9 mask entries"),
        ({"input_ids": [VOCABULARY] * 9}, "row 3 .* labels that are neither -100 nor the id"),
        ({"input_ids": [-1] * 9}, "row 3 .* ids from -1 to -1 for a vocabulary of unknown tokens"),
        ({"input_ids": [2**31] * 9, "labels": [2**31] * 9}, "row 3 .* ids from 2147483648"),
        ({"labels": [-100] * 9, "attention_mask": [1, 0, 1, 0, 0, 0, 0, 0, 0]}, "row 3 .* zeros between its ones"),
        ({"labels": None}, "row 3 .* not a flat list of integers"),
        ({"input_ids": []}, "row 3 .* not a flat list of integers"),
    ],
)
def test_the_row_that_is_wrong_is_named(change, message):
    rows = padded_rows(left=False)
    rows[3] = rows[3] | change
    for given in (rows, datasets.Dataset.from_list(rows)):
        with pytest.raises(ValueError, match=f"(?s){message}"):
            tokenize_rows(given, None, set_name="forget", max_length=None)
