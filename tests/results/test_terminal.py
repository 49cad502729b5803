"""Tests of tables for terminals: their width, what is kept whole, and what is said to a terminal alone."""

import io
import sys

import pytest

from hf_unlearn.results.terminal import terminal_table

HEADERS = ["", "before", "after", "oracle"]


def test_a_table_that_fits_is_the_same_text_by_hand() -> None:
    rows = [["forget answers", "96.9% [96.9, 100.0]", "3.1%"], ["seconds", None, "12.2"]]
    table = terminal_table(
        ["", "before", "after"], rows, title="Results", notes=["95% intervals in brackets."], width=80
    )
    assert table.split("\n") == [
        "Results",
        "                             before  after",
        "------------------------------------------",
        "forget answers  96.9% [96.9, 100.0]   3.1%",
        "seconds                           -   12.2",
        "",
        "95% intervals in brackets.",
    ]


def test_intervals_go_below_their_figures_before_the_first_column_is_wrapped() -> None:
    rows = [["an answer that is exactly as expected", *["96.9% [96.9, 100.0]"] * 3]]
    lines = terminal_table(HEADERS, rows, width=84).split("\n")
    assert max(map(len, lines)) <= 84
    assert lines[2].startswith("an answer that is exactly as expected  ")
    assert lines[3].split() == ["[96.9,", "100.0]"] * 3
    assert lines[2].endswith("96.9%"), "figures to the right"


@pytest.mark.parametrize("width", [40, 80, 132])
def test_no_line_is_wider_and_no_word_is_lost(width: int) -> None:
    rows = [
        [
            "npo",
            "[bold] markup and :smile: stay as they are, in a sentence that is longer than its column",
            "a/path.py",
        ],
        ["grad_ascent", "", "another/path/of/a/file.py"],
    ]
    lines = terminal_table(["name", "what it is", "where"], rows, width=width).split("\n")
    assert max(map(len, lines)) <= width
    assert {"npo", "[bold]", ":smile:", "grad_ascent", "another/path/of/a/file.py"} <= {*" ".join(lines).split()}


def test_columns_that_do_not_fit_stand_below_beside_the_first_one_again() -> None:
    names = [f"run_{number}" for number in range(9)]
    table = terminal_table(["metric", *names], [["exact", *["100.0% [99.12, 100.00]"] * 9]], width=80)
    blocks = [block.split("\n") for block in table.split("\n\n")]
    assert [block[0].split() for block in blocks] == [
        ["metric", *names[:4]],
        ["metric", *names[4:8]],
        ["metric", "run_8"],
    ]
    assert all(block[2].startswith("exact") for block in blocks)
    assert table.count("100.0%") == 9
    assert max(map(len, table.split("\n"))) <= 80


def test_a_word_wider_than_the_terminal_is_folded_not_cut() -> None:
    table = terminal_table(["name", "sha"], [["x" * 50, "y" * 70]], width=60)
    assert (table.count("x"), table.count("y")) == (50, 70)
    assert max(map(len, table.split("\n"))) <= 60


def test_texts_are_left_and_columns_of_figures_right() -> None:
    rows = [["a", "-0.5", "3 of 20", "no"], ["b", "1.2e-05", "-", "12 apples"]]
    lines = terminal_table(["name", "gap", "rows", "words"], rows, width=80).split("\n")
    assert lines[2] == "a        -0.5  3 of 20  no"
    assert lines[3] == "b     1.2e-05        -  12 apples"


def test_width_is_that_of_the_environment_and_80_without(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [["a", "word " * 60]]
    monkeypatch.setenv("COLUMNS", "100")
    assert 90 < max(map(len, terminal_table(["", "text"], rows).split("\n"))) <= 100
    monkeypatch.delenv("COLUMNS")
    monkeypatch.setattr(sys, "__stdout__", io.StringIO())  # no terminal
    assert 70 < max(map(len, terminal_table(["", "text"], rows).split("\n"))) <= 80


def test_codes_and_rules_are_for_terminals_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = terminal_table(["name", "n"], [["a", 1]], title="T", width=80)
    assert plain.isascii() and "\x1b" not in plain

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys, "stdout", Terminal())
    assert "\x1b[1m" in terminal_table(["name", "n"], [["a", 1]], title="T", width=80)


def test_a_row_of_another_length_is_an_error() -> None:
    with pytest.raises(ValueError, match="rows of 2 cells") as error:
        terminal_table(["a", "b"], [["1", "2"], ["1"]])
    assert "one of 1" in str(error.value)
