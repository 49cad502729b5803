"""A leaderboard of made-up runs: its keys, its rows beside those of others, its page, and what is refused."""

import json
import re

import pytest

from fixtures.compared import run, three_methods
from fixtures.examples import assert_four_parts
from hf_unlearn.results.leaderboard import (
    board_data,
    board_markdown,
    board_page,
    board_text,
    make_board,
    read_board_runs,
    write_board,
)
from hf_unlearn.results.published import PublishedRow

COMMAND = "hf-unlearn leaderboard harmful --methods npo simnpo wga --seeds 0 1 2"
OTHERS = PublishedRow(
    "OpenUnlearning", "their-npo", "harmful", {"forget_nll": 0.25}, ("intervals", "attacks"), "ab" * 32, ("Theirs.",)
)


@pytest.fixture(scope="module")
def board(tmp_path_factory):
    folder = three_methods(tmp_path_factory.mktemp("runs"))
    return make_board(sorted(folder.iterdir()), COMMAND, [OTHERS])


def test_the_keys_and_figures_of_the_json(board):
    data = json.loads(json.dumps(board_data(board), allow_nan=False))
    assert list(data) == [
        "format",
        "suite",
        "command",
        "date",
        "code",
        "runs",
        "models",
        "published",
        "settings",
        "notes",
    ]
    assert (data["format"], data["suite"], data["command"]) == (1, "harmful", COMMAND)
    one = data["runs"][0]
    assert sorted(one) == sorted(
        [
            "name",
            "method",
            "seed",
            "recipe",
            "record",
            "weights_in",
            "weights_out",
            "code",
            "versions",
            "hardware",
            "rows",
            "figures",
            "attacks",
        ]
    )
    assert (one["name"], one["method"], one["seed"]) == ("npo-seed-0", "npo", 0) and len(one["record"]) == 64
    assert one["figures"]["harmful_rate"]["value"] == 0.2
    assert data["models"]["oracle"]["harmful_rate"]["value"] == 0.2
    assert [method["label"] for method in data["settings"][0]["methods"]] == ["npo", "simnpo", "wga"]  # by rank
    assert data["published"][0]["figures"] == {"forget_nll": 0.25} and data["published"][0]["digest"] == "ab" * 32


def test_published_rows_stand_apart_with_what_they_lack(board):
    text = board_text(board, 100)
    before, _, beside = text.partition("Published by others")
    assert "their-npo" not in before and "their-npo (OpenUnlearning)" in beside
    assert "intervals, attacks" in beside and "not ranked" in beside.replace("\n", " ") and "Theirs." in beside
    assert all(method["label"] != "their-npo" for s in board_data(board)["settings"] for method in s["methods"])


def test_markdown_and_page_have_the_rows_the_hashes_and_the_command(board):
    markdown, page = board_markdown(board), board_page(board)
    for text in (markdown, page):
        assert COMMAND in text and "npo-seed-2" in text and "their-npo" in text
    assert "<title>Leaderboard: " in page and not re.search(r"(src|href)=.http", page)


def test_many_methods_have_a_row_each(tmp_path):
    """Before and the oracle are rows beside them."""
    for number in range(7):
        run(tmp_path, f"method{number}", 0, 0.1 * number, 0.9, 0.5)
    text = board_markdown(make_board(sorted(tmp_path.iterdir()), COMMAND))
    figures = text.partition(": figures")[2].partition("####")[0]
    first = [line.split("|")[1].strip() for line in figures.splitlines() if line.startswith("| ")]
    assert {"before", "oracle", *(f"method{number}" for number in range(7))} <= set(first)


def test_what_is_written_is_read_again(board, tmp_path):
    written = write_board(board, tmp_path)
    assert [path.name for path in written] == ["leaderboard.html", "leaderboard.md", "leaderboard.json"]
    assert read_board_runs(tmp_path) == read_board_runs(written[-1]) == board.runs


@pytest.mark.parametrize(
    "text", [None, "{", "[]", '{"format": 9, "runs": []}', '{"format": 1, "runs": [{"name": 3}]}']
)
def test_what_is_no_board_is_refused(tmp_path, text):
    if text is not None:
        (tmp_path / "leaderboard.json").write_text(text)
    with pytest.raises(ValueError) as error:
        read_board_runs(tmp_path)
    assert_four_parts(str(error.value))


def test_rows_of_another_suite_are_refused(tmp_path):
    other = PublishedRow("TOFU", "theirs", "tofu", {"forget_rouge": 0.5}, (), "cd" * 32)
    with pytest.raises(ValueError, match="published figures of the suite harmful") as error:
        make_board([run(tmp_path, "npo", 0, 0.1, 0.9, 0.5)], COMMAND, [other])
    assert_four_parts(str(error.value))
