"""The page itself, in gradio: what is typed and pressed, and what is shown. No model is touched here."""

import time
from collections.abc import Iterator, Sequence
from typing import Any

import gradio as gr
import torch

from ..evaluation.decoding import Decoding
from ..results.report import Verdict
from .blind import LETTERS, Vote
from .rendering import COLOURED, LOOKS, alert_html, board_html, header_html, report_html, tally_html, vote_html
from .session import Board, Session

# The page is drawn again after so many seconds at most: more often than can be read would cost more than the models.
_REDRAWN = 0.06
_ASK = "Type a prompt and press Ask: the models answer it one after the other, token by token."
_SCORE = "Give a prompt and an answer: every model says how likely it finds each token of it."
_FOOT = "The page is served by this machine and sends nothing anywhere. Prompts, answers and votes are kept nowhere"
# What a person can do something about: another prompt, a shorter answer.
_TOLD = (ValueError, torch.OutOfMemoryError)
# Of events that touch a model: one at a time, whoever asks. Others do not wait for them.
_WORK: dict[str, Any] = {"concurrency_id": "models", "concurrency_limit": 1}
_AT_ONCE: dict[str, Any] = {"queue": False, "api_visibility": "private", "show_progress": "hidden"}


def build_page(
    session: Session,
    *,
    title: str,
    verdicts: Sequence[tuple[str, Verdict]],
    report: str,
    showable: Sequence[str] = (),
    templated: bool = False,
) -> gr.Blocks:
    """The page, ready to be served.

    Args:
        session: its models.
        title: of it.
        verdicts: run and verdict of each.
        report: the runs' report as HTML.
        showable: prompts that the runs marked as showable.
        templated: whether prompts are read within a template, so that there is a choice.
    """
    actions, kept = _Actions(session), session.tally_file
    with gr.Blocks(title=title, analytics_enabled=False, fill_width=True) as page:
        gr.HTML(header_html(title, verdicts))
        with gr.Tab("Ask"):
            board, prompt = _ask_tab(actions, showable, templated)
        with gr.Tab("Score a text"):
            _score_tab(actions, board, prompt, templated)
        with gr.Tab("Report"):
            gr.HTML(report_html(report))
        but = "." if kept is None else f", but for votes, which go to {kept.path.name}."
        gr.HTML(f'<p class="hu-small">{_FOOT}{but}</p>')
    return page


class _Actions:
    """What the page does when something is pressed.

    Args:
        session: whose models are asked.
    """

    def __init__(self, session: Session) -> None:
        self.session = session

    def ask(
        self, prompt: str, hidden: bool, plain: bool, look: str, longest: int, heat: float, seed: int | None
    ) -> Iterator[tuple[Any, ...]]:
        """Board, its HTML, ballot, letter, button to vote and what was told of the last vote, again and again."""
        # A new prompt is a new round: nothing is chosen, and no vote is taken before the answers are there.
        fresh = (gr.update(visible=hidden), gr.update(value=None), gr.update(interactive=False), "")
        if not prompt.strip():
            yield Board(), alert_html("Type a prompt first."), gr.update(visible=False), *fresh[1:]
            return
        decoding, drawn, last = Decoding(int(longest), float(heat), int(seed or 0)), 0.0, Board()
        try:
            for last in self.session.ask(prompt, decoding, hidden=hidden, plain=plain):
                if time.monotonic() - drawn > _REDRAWN:
                    drawn = time.monotonic()
                    yield last, board_html(last, look), *fresh
        except _TOLD as error:
            yield Board(), alert_html(str(error)), gr.update(visible=False), *fresh[1:]
            return
        yield last, board_html(last, look), *fresh[:2], gr.update(interactive=hidden), ""

    def vote(self, board: Board, sought: str, letter: str | None, votes: list[Vote], look: str) -> tuple[Any, ...]:
        """Board, its HTML, what is told, the votes and the button to vote."""
        if letter is None or not board.hidden:
            text = "Choose a column first." if board.hidden else "Ask a new prompt for the next vote."
            return board, board_html(board, look, empty=_ASK), alert_html(text), votes, gr.update()
        where, kept = LETTERS[board.names.index(sought)], self.session.tally_file
        board, cast = self.session.vote(board, sought, letter)
        votes = [*votes, cast]
        words = vote_html(cast.right, sought, letter, where)
        words += tally_html(self.session.tally(votes), None if kept is None else kept.path.name)
        return board, board_html(board, look), words, votes, gr.update(interactive=False)

    def score(self, prompt: str, answer: str, plain: bool, look: str) -> tuple[Board, str]:
        """Board and its HTML."""
        if not answer.strip():
            return Board(), alert_html("Type an answer first.")
        try:
            board = self.session.score(prompt, answer, plain=plain)
        except _TOLD as error:
            return Board(), alert_html(str(error))
        return board, board_html(board, look)

    def take_over(self, board: Board, prompt: str, title: str | None) -> tuple[str, str]:
        """Prompt and answer of a column of the other tab."""
        return prompt, "" if title is None else board.answer_of(title)


def _ask_tab(actions: _Actions, showable: Sequence[str], templated: bool) -> tuple[gr.State, gr.Textbox]:
    """Its board, and its prompt."""
    session, board, votes = actions.session, gr.State(Board()), gr.State([])
    with gr.Group():
        prompt = gr.Textbox(label="Prompt", lines=3, placeholder="Ask the models something", elem_id="prompt")
        if showable:
            label = "Or one that the run may show"
            marked = gr.Dropdown(list(showable), value=None, label=label, elem_id="showable")
            marked.input(lambda chosen: chosen or "", marked, prompt, **_AT_ONCE)
    with gr.Row():
        ask = gr.Button("Ask", variant="primary", elem_id="ask", scale=0, min_width=160)
        stop = gr.Button("Stop", elem_id="stop", scale=0, min_width=100)
    with gr.Group(), gr.Row(elem_classes="hu-options"):
        look = gr.Radio(list(LOOKS), value=COLOURED, label="Tokens", elem_id="look", scale=2)
        hidden = gr.Checkbox(
            label="Hide which is which",
            info="Columns in a drawn order, without names; then vote",
            elem_id="hidden",
            visible=len(session.columns) > 1,
        )
        plain = _plain_choice(templated)
    with gr.Accordion("Length, temperature, seed", open=False), gr.Row():
        longest = gr.Slider(1, 512, value=64, step=1, label="Longest answer, tokens")
        heat = gr.Slider(0, 2, value=0, step=0.05, label="Temperature (0: the likeliest token)")
        seed = gr.Number(0, precision=0, label="Seed of the draws")
    shown = gr.HTML(board_html(Board(), empty=_ASK), elem_id="answers")
    with gr.Column(visible=False) as ballot:
        with gr.Group(), gr.Row():
            first = _first_sought(session)
            sought = gr.Dropdown(session.names, value=first, label="Which column is", elem_id="sought", min_width=200)
            letters = list(LETTERS[: len(session.columns)])
            letter = gr.Radio(letters, label="It is column", elem_id="letter", min_width=200)
        cast = gr.Button("Vote", elem_id="vote", interactive=False, scale=0, min_width=160)
    told = gr.HTML("", elem_id="told")

    results = [board, shown, ballot, letter, cast, told]
    given = [prompt, hidden, plain, look, longest, heat, seed]
    asked = gr.on(
        [ask.click, prompt.submit], actions.ask, given, results, api_name="ask", show_progress_on=shown, **_WORK
    )
    stop.click(None, cancels=[asked], queue=False, api_visibility="private")
    cast.click(actions.vote, [board, sought, letter, votes, look], [board, shown, told, votes, cast], api_name="vote")
    _draw_again(look, board, shown, _ASK)
    return board, prompt


def _score_tab(actions: _Actions, asked: gr.State, asked_prompt: gr.Textbox, templated: bool) -> None:
    board = gr.State(Board())
    with gr.Group():
        prompt = gr.Textbox(label="Prompt", lines=3, placeholder="What comes before it", elem_id="score-prompt")
        answer = gr.Textbox(
            label="Answer",
            lines=3,
            placeholder="The text that is scored",
            elem_id="score-answer",
            info="Spaces count: where prompt and answer are joined without a template, it begins with one",
        )
        names = actions.session.names
        taken = gr.Dropdown(names, value=None, label="Or take the answer that was given by", elem_id="taken")
    score = gr.Button("Score under all models", variant="primary", elem_id="score", scale=0, min_width=220)
    with gr.Group(), gr.Row(elem_classes="hu-options"):
        look = gr.Radio(list(LOOKS[:2]), value=COLOURED, label="Tokens")
        plain = _plain_choice(templated)
    shown = gr.HTML(board_html(Board(), empty=_SCORE), elem_id="scores")

    taken.input(actions.take_over, [asked, asked_prompt, taken], [prompt, answer], **_AT_ONCE)
    score.click(actions.score, [prompt, answer, plain, look], [board, shown], api_name="score", **_WORK)
    _draw_again(look, board, shown, _SCORE)


def _draw_again(look: gr.Radio, board: gr.State, shown: gr.HTML, empty: str) -> None:
    look.change(lambda known, look: board_html(known, look, empty=empty), [board, look], shown, **_AT_ONCE)


def _plain_choice(templated: bool) -> gr.Checkbox:
    label, info = "Without the run's template", "The prompt as it is, to be continued"
    return gr.Checkbox(label=label, info=info, visible=templated)


def _first_sought(session: Session) -> str:
    return "after" if "after" in session.names else session.names[0]
