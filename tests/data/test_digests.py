"""What a row and a set of rows are known by: one digest, whatever container they lie in, and the same as ever."""

import hashlib
import struct

import datasets
import pytest

from hf_unlearn.data import token_arrays
from hf_unlearn.data.digests import prompt_digest, row_digest, row_digests, set_digest, shared_rows
from hf_unlearn.data.tokenization import tokenize_rows

ROWS = [{"input_ids": [5, 6 + i, 7], "labels": [-100, 6 + i, 7]} for i in range(6)]


def test_digests_by_hand():
    numbers = struct.pack("<6i", 5, 6, 7, -100, 6, 7)
    assert row_digest(ROWS[0]) == hashlib.sha256(numbers).hexdigest()
    # Records and results of earlier versions hold this digest of a set, and are compared with it.
    texts = b"[[5, 6, 7], [-100, 6, 7]]" + b"[[5, 7, 7], [-100, 7, 7]]"
    assert set_digest(ROWS[:2]) == hashlib.sha256(texts).hexdigest()


def containers() -> dict[str, object]:
    tokenized = tokenize_rows(ROWS, None, set_name="eval", max_length=None)
    return {
        "a list": ROWS,
        "tokenised": tokenized,
        "selected": tokenize_rows(ROWS[::-1], None, set_name="eval", max_length=None).select([5, 4, 3, 2, 1, 0]),
        "a slice": datasets.concatenate_datasets([tokenized, tokenized]).select(range(6, 12)),
        "in parts": datasets.concatenate_datasets([tokenized.select(range(2)), tokenized.select(range(2, 6))]),
        "in 64 bits": datasets.Dataset.from_list(ROWS),
        "as tensors": tokenized.with_format("torch"),
        "of another type": [{name: tuple(ids) for name, ids in row.items()} for row in ROWS],
    }


@pytest.mark.parametrize("name", list(containers()))
def test_digests_are_those_of_the_rows_wherever_they_lie(name):
    rows = containers()[name]
    assert list(row_digests(rows)) == [row_digest(row) for row in ROWS]
    assert set_digest(rows) == set_digest(ROWS)


@pytest.mark.parametrize("batch", [1, 4, 500])
def test_digests_do_not_know_how_many_rows_are_read_at_once(batch, monkeypatch):
    monkeypatch.setattr(token_arrays, "_BATCH_ROWS", batch)
    rows = [*ROWS, {"input_ids": [1_000_000, 0], "labels": [-100, 0]}, {"input_ids": [], "labels": []}]
    listed = datasets.Dataset.from_list(rows)
    for given in (listed, datasets.concatenate_datasets([listed.select(range(5)), listed.select([5, 6, 7])])):
        assert set_digest(given) == set_digest(rows)
        assert list(row_digests(given)) == [row_digest(row) for row in rows]


def test_ids_labels_and_order_count_and_nothing_else():
    other_prompt = {"input_ids": [4, 6, 7], "labels": [-100, 6, 7]}
    other_mask = {"input_ids": [5, 6, 7], "labels": [-100, -100, 7]}
    assert len({row_digest(row) for row in (ROWS[0], other_prompt, other_mask)}) == 3
    assert row_digest(ROWS[0] | {"answer_start": 1, "row": 3}) == row_digest(ROWS[0])
    assert set_digest(ROWS[::-1]) != set_digest(ROWS)


def test_prompts_are_told_apart_by_their_ids_alone():
    assert prompt_digest([5, 6]) == prompt_digest((5, 6)) != prompt_digest([56])
    assert prompt_digest([5, 6]) != row_digest({"input_ids": [5, 6], "labels": [5, 6]})


def test_rows_of_unlike_lengths_are_told_apart():
    rows = [{"input_ids": ids, "labels": ids} for ids in ([5], [5, 5], [5, 5, 5, 5])]
    assert len(set(row_digests(rows))) == len({set_digest([row]) for row in rows}) == 3
    assert list(row_digests(datasets.Dataset.from_list(rows))) == [row_digest(row) for row in rows]


def test_shared_rows_are_places_in_the_second_set():
    assert shared_rows(ROWS[:3], [ROWS[5], ROWS[2], ROWS[0]]) == [1, 2]
    assert shared_rows(ROWS[:3], ROWS[3:]) == []
