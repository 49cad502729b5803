"""Where a tokenised row's answer starts: from its column, and without it; rows of several trained turns."""

import pytest

from hf_unlearn.data.lengths import longest_mismatch
from hf_unlearn.data.row_items import mismatch_row
from hf_unlearn.data.tokenization import tokenize_rows
from hf_unlearn.data.tokenized_row import answer_ids, answer_start, prompt_ids, target_count, trained_ids

# Two trained turns, 6 7 and 9, with a user's turn 8 between them.
TURNS = {"input_ids": [5, 6, 7, 8, 9], "labels": [-100, 6, 7, -100, 9]}
ROWS = [
    TURNS,
    {"input_ids": [5, 6, 7], "labels": [-100, -100, 7]},
    {"input_ids": [5, 6], "labels": [5, 6]},  # trained from its first token on
    {"input_ids": [4, 5, 6, 7], "labels": [-100, -100, -100, 7]},
]


def test_a_row_of_several_trained_turns_starts_with_the_first_of_them():
    assert answer_start(TURNS) == 1
    assert prompt_ids(TURNS) == [5] and answer_ids(TURNS) == [6, 7, 8, 9]
    assert trained_ids(TURNS["labels"]) == [6, 7, 9] and target_count(TURNS["labels"]) == 3
    # Its answer under another prompt keeps the turn in the middle masked.
    moved = mismatch_row(ROWS[1], TURNS, None)
    assert moved == {"input_ids": [5, 6, 6, 7, 8, 9], "labels": [-100, -100, 6, 7, -100, 9]}


def test_the_first_position_is_answer_and_no_target():
    assert answer_start(ROWS[2]) == 0 and prompt_ids(ROWS[2]) == []
    assert trained_ids(ROWS[2]["labels"]) == [5, 6] and target_count(ROWS[2]["labels"]) == 1


@pytest.mark.parametrize("max_length", [None, 4])
def test_the_column_says_what_the_labels_say(max_length):
    tokenized = tokenize_rows(ROWS, None, set_name="retain", max_length=max_length)
    assert tokenized["answer_start"][:] == [1, 2, 0, 3]
    for row in tokenized:
        without = {name: value for name, value in row.items() if name != "answer_start"}
        assert answer_start(row) == answer_start(without)
        assert (prompt_ids(row), answer_ids(row)) == (prompt_ids(without), answer_ids(without))


def test_the_column_is_read_where_it_is():
    assert answer_start(TURNS | {"answer_start": 3}) == 3


def test_the_longest_mismatch_is_measured_without_composing_it():
    forget, retain = (tokenize_rows(rows, None, set_name="eval", max_length=None) for rows in (ROWS[1:], ROWS))
    composed = [mismatch_row(one, other, None) for one in forget for other in retain]
    assert longest_mismatch(forget, retain) == max(len(row["input_ids"]) for row in composed) == 7
    without = [rows.remove_columns("answer_start") for rows in (forget, retain)]
    assert longest_mismatch(*without) == 7
