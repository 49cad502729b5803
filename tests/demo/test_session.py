"""What a page shows of models that answer by rote: order, names hidden and told, votes; and its HTML."""

import random
import re
from dataclasses import dataclass

import pytest

from fixtures.models import tiny_tokenizer
from fixtures.report import record
from hf_unlearn.data.prepare import RowOptions
from hf_unlearn.demo.blind import Found, TallyFile, Vote
from hf_unlearn.demo.columns import Column
from hf_unlearn.demo.rendering import (
    NUMBERED,
    PLAIN,
    alert_html,
    board_html,
    header_html,
    report_html,
    tally_html,
    vote_html,
)
from hf_unlearn.demo.session import Board, Session, Shown
from hf_unlearn.demo.tokens import Token
from hf_unlearn.evaluation.generation import Decoding
from hf_unlearn.results.verdict import verdict


@dataclass
class ByRote:
    """A thread whose models say their own names, in two tokens and an end."""

    asked: list = None

    def answer(self, column, prompt, decoding):
        self.asked = [*(self.asked or []), (column.name, column.options.template, prompt)]
        yield from (Token("I am", -0.1), Token(f" {column.name}", -3.0), Token("</s>", -0.01, end=True))

    def score(self, column, prompt, answer):
        return [Token(answer, -float(len(column.name)))]


def session_of(names=("before", "after", "oracle"), **more):
    options = RowOptions(tiny_tokenizer(), 64, None, None)
    return Session([Column(name, None, options, note=f"note of {name}") for name in names], ByRote(), **more)


def test_columns_answer_one_after_the_other_and_grow_token_by_token():
    boards = list(session_of().ask("Who?", Decoding(4)))
    assert [column.title for column in boards[0].columns] == ["before", "after", "oracle"]
    assert [[column.state for column in board.columns] for board in (boards[0], boards[5], boards[-1])] == [
        ["answering", "waiting", "waiting"],
        ["done", "answering", "waiting"],
        ["done", "done", "done"],
    ]
    lengths = [sum(len(column.tokens) for column in board.columns) for board in boards]
    assert lengths == sorted(lengths) and lengths[-1] == 9
    assert boards[-1].answer_of("after") == "I am after" and boards[-1].answer_of("other") == ""
    assert boards[-1].read == ("<s>Who?",)


def test_names_are_hidden_until_a_vote_in_what_is_sent_to_the_page_too():
    session, orders = session_of(source=random.Random(1)), set()
    for _ in range(12):
        board = list(session.ask("Who?", Decoding(4), hidden=True))[-1]
        orders.add(board.names)
        assert [column.title for column in board.columns] == ["A", "B", "C"]
        shown = re.sub(
            r"I am(<[^>]*>| )*\w+", "", board_html(board, PLAIN)
        )  # these models tell their names themselves
        assert not any(name in shown for name in session.names)
        assert board.answer_of("after") == ""
    assert len(orders) > 2
    letter = "ABC"[board.names.index("oracle")]
    told, vote = session.vote(board, "after", letter)
    assert vote == Vote("after", "oracle", 3) and not vote.right and not told.hidden
    assert [column.title for column in told.columns] == [
        f"{letter}: {name}" for letter, name in zip("ABC", board.names, strict=True)
    ]
    assert told.columns[0].note == f"note of {board.names[0]}"
    assert session.tally([vote]) == [Found("after", 3, 0, 1)]


def test_votes_of_a_file_are_counted_with_those_before(tmp_path):
    TallyFile(tmp_path / "votes").add(Vote("after", "after", 3))
    session = session_of(tally_file=TallyFile(tmp_path / "votes"))
    board = list(session.ask("Who?", Decoding(4), hidden=True))[-1]
    _, vote = session.vote(board, "after", "ABC"[board.names.index("after")])
    assert session.tally([vote]) == [Found("after", 3, 2, 2)] and len(TallyFile(tmp_path / "votes").votes) == 2


def test_a_prompt_is_read_without_the_template_where_that_is_asked_for():
    session = session_of(("after",))
    (board,) = list(session.ask("Who?", Decoding(4), plain=True))[-1:]
    assert session._thread.asked == [("after", "{prompt}{completion}", "Who?")] and board.read == ("<s>Who?",)


def test_a_given_answer_is_scored_under_all():
    board = session_of().score("Who?", " me")
    assert [column.tokens[0].logp for column in board.columns] == [-6.0, -5.0, -6.0]
    assert "1 tokens, mean probability 0.2%, 6.00 nats a token" in board_html(board)


# HTML


def board_of(*tokens):
    return Board((Shown("<after>", "", tokens, "done"),), ("<after>",))


def test_text_of_models_and_people_is_text():
    evil = "<img src=x onerror=alert(1)>"
    html = board_html(board_of(Token(evil, -0.5), Token('"&', None)), empty=evil)
    html += alert_html(evil) + vote_html(True, evil, "A", "B") + vote_html(False, evil, "A", "B")
    html += tally_html([Found(evil, 2, 1, 1)], kept=evil) + board_html(Board(), empty=evil)
    html += header_html(evil, [(evil, verdict(record())), ("b", verdict(record()))])
    assert "<img" not in html and "&lt;img" in html and "&#34;&amp;" in html and "&lt;after&gt;" in html
    assert 'srcdoc="&lt;p title=&#34;a&#34;&gt;"' in report_html('<p title="a">')


@pytest.mark.parametrize(
    ("logp", "step", "number"),
    [
        (0.0, 0, "100%"),
        (-0.2, 1, "82%"),
        (-1.0, 2, "37%"),
        (-3.0, 3, "5.0%"),
        (-6.0, 4, "0.2%"),
        (-9.0, 4, "&lt;0.1%"),
    ],
)
def test_a_token_has_its_colour_its_number_and_nats(logp, step, number):
    html = board_html(board_of(Token("a", -1.0), Token(" tea", logp)), NUMBERED)
    assert f' <span class="hu-t hu-p{step}" title="{number} ({-logp:.2f} nats)">tea<sub>{number}</sub></span>' in html
    assert "<sub>" not in board_html(board_of(Token(" tea", logp)))


def test_a_legend_tells_the_colours_and_plain_text_has_none():
    board = board_of(Token("a\n", -9.0), Token("</s>", -0.1, end=True))
    assert board_html(board).count("<li>") == 5 and "↵" in board_html(board) and ">end<" in board_html(board)
    plain = board_html(board, PLAIN)
    assert "hu-t" not in plain and "<li>" not in plain and "end" not in re.sub(r"<[^>]*>", "", plain)
    assert "(an empty answer)" in board_html(board_of(Token("</s>", -0.1, end=True)))


def test_a_verdict_has_a_mark_beside_its_colour():
    html = header_html("Try it", [("a", verdict(record()))])
    assert all(question in html for question in ("Removed?", "Rest intact?", "Stays gone?"))
    assert any(mark in html for mark in ("✓ yes", "≈ mostly", "✗ no", "– not tested"))


def test_votes_are_a_table():
    html = tally_html([Found("after", 3, 2, 3)])
    assert "after among 3" in html and "2 of 3" in html and "33%" in html and "0.259" in html
    assert "Kept nowhere" in html and "No votes yet" in tally_html([])
