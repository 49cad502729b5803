"""The page itself, in gradio: what is typed and pressed, and what is shown. No model is touched here."""

import time
from collections.abc import Iterator, Sequence
from typing import Any

import gradio as gr

from ..evaluation.generation import Decoding
from .blind import LETTERS, Vote
from .rendering import COLOURED, LOOKS, alert_html, board_html, header_html, report_html, tally_html, vote_html
from .session import Board, Session

# The page is drawn again after so many seconds at most: more often than can be read would cost more than the models.
_REDRAWN = 0.06
_ASK = "Type a prompt and press Ask: every model answers it, token by token."
_SCORE = "Give a prompt and an answer: every model says how likely it finds each token of it."
_MODELS = "models"  # one piece of work at a time, whoever asks


def build_page(
    session: Session,
    *,
    title: str,
    verdicts: Sequence[tuple[str, str, str]],
    report: str,
    showable: Sequence[str] = (),
    templated: bool = False,
) -> gr.Blocks:
    """The page, ready to be served.

    Args:
        session: its models.
        title: of it.
        verdicts: run, level and sentence of each.
        report: the runs' report as HTML.
        showable: prompts that the runs marked as showable.
        templated: whether prompts are read within a template, so that there is a choice.
    """
    with gr.Blocks(title=title, analytics_enabled=False, fill_width=True) as page:
        gr.HTML(header_html(title, verdicts))
        with gr.Tab("Ask"):
            _ask_tab(session, showable, templated)
        with gr.Tab("Score a text"):
            _score_tab(session, templated)
        with gr.Tab("Report"):
            gr.HTML(report_html(report))
    page.queue(default_concurrency_limit=1)
    return page


def _ask_tab(session: Session, showable: Sequence[str], templated: bool) -> None:
    board, votes = gr.State(Board()), gr.State([])
    if showable:
        marked = gr.Dropdown(
            list(showable), value=None, label="Prompts of the run that may be shown", elem_id="showable"
        )
    prompt = gr.Textbox(label="Prompt", lines=3, placeholder="Ask the models something", elem_id="prompt")
    if showable:
        marked.input(lambda chosen: chosen or "", marked, prompt, queue=False, api_visibility="private")
    with gr.Row():
        ask = gr.Button("Ask", variant="primary", elem_id="ask")
        stop = gr.Button("Stop", elem_id="stop")
    with gr.Row():
        look = gr.Radio(list(LOOKS), value=COLOURED, label="Tokens", elem_id="look")
        hidden = gr.Checkbox(
            label="Hide which is which", info="Columns in a drawn order, without names", elem_id="hidden",
            visible=len(session.columns) > 1,
        )  # fmt: skip
        plain = _plain_choice(templated)
    with gr.Accordion("Length, temperature, seed", open=False), gr.Row():
        longest = gr.Slider(1, 512, value=64, step=1, label="Longest answer, tokens")
        heat = gr.Slider(0, 2, value=0, step=0.05, label="Temperature (0: the likeliest token)")
        seed = gr.Number(0, precision=0, label="Seed of the draws")
    shown = gr.HTML(board_html(Board(), empty=_ASK), elem_id="answers")
    with gr.Group(visible=False) as ballot, gr.Row():
        sought = gr.Dropdown(session.names, value=_first_sought(session), label="Which column is", elem_id="sought")
        letter = gr.Radio(list(LETTERS[: len(session.columns)]), label="It is column", elem_id="letter")
        cast = gr.Button("Vote", elem_id="vote", interactive=False)
    told = gr.HTML("", elem_id="told")

    def answer(
        prompt: str, hidden: bool, plain: bool, look: str, longest: int, heat: float, seed: int | None
    ) -> Iterator[tuple[Any, ...]]:
        fresh = (gr.update(visible=hidden), gr.update(value=None), gr.update(interactive=False), "")
        if not prompt.strip():
            yield Board(), alert_html("Type a prompt first."), *fresh[:3], ""
            return
        decoding, drawn, last = Decoding(int(longest), float(heat), int(seed or 0)), 0.0, Board()
        try:
            for last in session.ask(prompt, decoding, hidden=hidden, plain=plain):
                if time.monotonic() - drawn > _REDRAWN:
                    drawn = time.monotonic()
                    yield last, board_html(last, look), *fresh
        except ValueError as error:
            yield Board(), alert_html(str(error)), *fresh
            return
        yield last, board_html(last, look), *fresh[:2], gr.update(interactive=hidden), ""

    def vote(board: Board, sought: str, letter: str | None, votes: list[Vote], look: str) -> tuple[Any, ...]:
        if letter is None or not board.hidden:
            text = "Choose a column first." if board.hidden else "Ask a new prompt for the next vote."
            return board, board_html(board, look, empty=_ASK), alert_html(text), votes, gr.update()
        told, cast = session.vote(board, sought, letter)
        votes = [*votes, cast]
        where = LETTERS[board.names.index(sought)]
        kept = None if session.tally_file is None else session.tally_file.path.name
        words = vote_html(cast.right, sought, letter, where) + tally_html(session.tally(votes), kept)
        return told, board_html(told, look), words, votes, gr.update(interactive=False)

    results = [board, shown, ballot, letter, cast, told]
    given = [prompt, hidden, plain, look, longest, heat, seed]
    asked = ask.click(answer, given, results, concurrency_id=_MODELS, concurrency_limit=1, api_name="ask")
    stop.click(None, cancels=[asked], queue=False, api_visibility="private")
    look.change(
        lambda board, look: board_html(board, look, empty=_ASK), [board, look], shown,
        queue=False, api_visibility="private", show_progress="hidden",
    )  # fmt: skip
    cast.click(vote, [board, sought, letter, votes, look], [board, shown, told, votes, cast], api_name="vote")


def _score_tab(session: Session, templated: bool) -> None:
    board = gr.State(Board())
    prompt = gr.Textbox(label="Prompt", lines=2, placeholder="What comes before the answer", elem_id="score-prompt")
    answer = gr.Textbox(
        label="Answer", lines=3, placeholder="The text that is scored", elem_id="score-answer",
        info="Spaces count: where rows are joined without a template, an answer begins with one",
    )  # fmt: skip
    with gr.Row():
        look = gr.Radio(list(LOOKS[:2]), value=COLOURED, label="Tokens")
        plain = _plain_choice(templated)
    score = gr.Button("Score under all models", variant="primary", elem_id="score")
    shown = gr.HTML(board_html(Board(), empty=_SCORE), elem_id="scores")

    def scored(prompt: str, answer: str, plain: bool, look: str) -> tuple[Board, str]:
        if not answer.strip():
            return Board(), alert_html("Type an answer first.")
        try:
            board = session.score(prompt, answer, plain=plain)
        except ValueError as error:
            return Board(), alert_html(str(error))
        return board, board_html(board, look)

    given = [prompt, answer, plain, look]
    score.click(scored, given, [board, shown], concurrency_id=_MODELS, concurrency_limit=1, api_name="score")
    look.change(
        lambda board, look: board_html(board, look, empty=_SCORE), [board, look], shown,
        queue=False, api_visibility="private", show_progress="hidden",
    )  # fmt: skip


def _plain_choice(templated: bool) -> gr.Checkbox:
    return gr.Checkbox(
        label="Without the run's template", info="The prompt as it is, to be continued", visible=templated
    )


def _first_sought(session: Session) -> str:
    return "after" if "after" in session.names else session.names[0]
