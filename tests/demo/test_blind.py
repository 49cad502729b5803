"""Columns without names: their order, votes counted by hand, and the file that keeps them."""

import json
import random

import pytest

from fixtures.examples import assert_four_parts
from hf_unlearn.demo.blind import Found, TallyFile, Vote, drawn_order, tally


def test_every_order_is_drawn():
    source = random.Random(0)
    orders = {tuple(drawn_order(3, source)) for _ in range(60)}
    assert len(orders) == 6 and all(sorted(order) == [0, 1, 2] for order in orders)


def test_votes_are_counted_by_model_and_number_of_columns():
    votes = [
        *[Vote("after", "after", 3)] * 2,
        Vote("after", "oracle", 3),
        Vote("before", "before", 3),
        Vote("after", "after", 2),
    ]
    assert tally(votes) == [Found("after", 3, 2, 3), Found("before", 3, 1, 1), Found("after", 2, 1, 1)]
    assert tally([]) == []


def test_p_values_are_those_of_guessing():
    # P(X >= 2) of three votes among three columns: 3 (1/3)^2 (2/3) + (1/3)^3.
    assert Found("after", 3, 2, 3).p_value == pytest.approx(7 / 27)
    assert Found("after", 2, 5, 5).p_value == pytest.approx(1 / 32)
    assert Found("after", 3, 0, 4).p_value == pytest.approx(1.0)
    assert Found("after", 4, 1, 1).chance == 0.25


def test_a_file_keeps_votes_and_no_text(tmp_path):
    file = TallyFile(tmp_path / "votes.jsonl")
    assert file.votes == [] and not file.path.exists()
    votes = [Vote("after", "oracle", 3), Vote("after", "after", 3)]
    for vote in votes:
        file.add(vote)
    assert TallyFile(file.path).votes == file.votes == votes
    lines = [json.loads(line) for line in file.path.read_text().splitlines()]
    assert lines[0] == {"sought": "after", "chosen": "oracle", "choices": 3}


@pytest.mark.parametrize(
    "text", ["no JSON", '{"sought": "a"}', '["a"]', '{"sought": "a", "chosen": "b", "choices": 1}']
)
def test_another_file_is_not_added_to(tmp_path, text):
    (tmp_path / "other").write_text(text)
    with pytest.raises(ValueError) as error:
        TallyFile(tmp_path / "other")
    assert_four_parts(str(error.value), "--tally", "other")
    assert (tmp_path / "other").read_text() == text


def test_a_folder_is_no_file_for_votes(tmp_path):
    for path in (tmp_path, tmp_path / "nowhere" / "votes"):
        with pytest.raises(ValueError) as error:
            TallyFile(path)
        assert_four_parts(str(error.value), "folder")
