"""The parts of the page as HTML: columns of coloured tokens, their legend, the tally, verdicts. Text is escaped."""

import math
from collections.abc import Sequence
from dataclasses import replace

from markupsafe import Markup, escape

from ..results.report import Verdict
from .blind import Found
from .session import Board, Shown
from .tokens import Token, likelihood_of

# Lower bounds of the probability of a token, from likely to unlikely; the classes of demo.css by place.
SCALE = ((0.9, "90% or more"), (0.5, "50 to 90%"), (0.1, "10 to 50%"), (0.01, "1 to 10%"), (0.0, "below 1%"))
COLOURED, NUMBERED, PLAIN = "coloured", "coloured, with numbers", "plain text"
LOOKS = (COLOURED, NUMBERED, PLAIN)
# Of a verdict's word: its class, and a mark so that it is not told by colour alone.
_MARKS = {"yes": ("yes", "✓"), "mostly": ("mostly", "≈"), "no": ("no", "✗"), "not tested": ("untested", "–")}
_STATES = {"waiting": "waits", "answering": "answers ...", "done": ""}


def board_html(board: Board, look: str = COLOURED, *, empty: str = "") -> str:
    """The columns of a page side by side, below each other where the screen is narrow.

    Args:
        board: to show.
        look: of `LOOKS`.
        empty: what stands where there are no columns yet.
    """
    if not board.columns:
        return Markup('<p class="hu-empty">{}</p>').format(empty)
    columns = Markup("").join(_column(column, look) for column in board.columns)
    legend = Markup("") if look == PLAIN else _legend()
    read = Markup("").join(Markup("<pre>{}</pre>").format(text) for text in board.read)
    if read:
        read = Markup(
            '<details class="hu-read"><summary>The prompt as the models read it</summary>{}</details>'
        ).format(read)
    return Markup('{}<div class="hu-board">{}</div>{}').format(legend, columns, read)


def tally_html(found: Sequence[Found], kept: str | None = None) -> str:
    """The votes so far as a table.

    Args:
        found: by model and number of columns.
        kept: name of the file that keeps the votes; None where nothing does.
    """
    where = "Kept nowhere: they are gone with the page." if kept is None else f"Kept in {kept}."
    if not found:
        return Markup('<p class="hu-small">No votes yet. {}</p>').format(where)
    rows = Markup("").join(
        Markup("<tr><th scope='row'>{} among {}</th><td>{} of {}</td><td>{:.0%}</td><td>{}</td></tr>").format(
            one.sought, one.choices, one.right, one.votes, one.chance, _p_words(one.p_value)
        )
        for one in found
    )
    return Markup(
        "<table class='hu-tally'><caption>Votes so far</caption><thead><tr><th scope='col'>Sought</th>"
        "<th scope='col'>Found</th><th scope='col'>By guessing</th><th scope='col'>p-value</th></tr></thead>"
        "<tbody>{}</tbody></table><p class='hu-small'>The p-value is the probability of at least so many right votes "
        "by guessing (binomial test): a small one says that the models can be told apart. {}</p>"
    ).format(rows, where)


def vote_html(right: bool, sought: str, letter: str, where: str) -> str:
    """What became of a vote."""
    if right:
        return Markup('<p class="hu-told"><strong>Right.</strong> Column {} is {}.</p>').format(letter, sought)
    return Markup('<p class="hu-told"><strong>Not so.</strong> Column {} is not {}; column {} is.</p>').format(
        letter, sought, where
    )


def alert_html(text: str) -> str:
    """What went wrong, for a person to read."""
    return Markup('<p class="hu-alert" role="alert">{}</p>').format(text)


def report_html(page: str) -> str:
    """The report of the runs as a page within the page, without access to it."""
    return Markup(
        '<iframe class="hu-report" title="Report of the runs" sandbox="allow-scripts" srcdoc="{}"></iframe>'
    ).format(page)


def header_html(title: str, verdicts: Sequence[tuple[str, Verdict]]) -> str:
    """The head of the page: what came of each run, in three lines.

    Args:
        title: of the page.
        verdicts: run and verdict of each.
    """
    told = Markup("").join(_verdict(run if len(verdicts) > 1 else "", judged) for run, judged in verdicts)
    return Markup(
        '<header class="hu-head"><p class="hu-kicker">hf_unlearn</p><h1>{}</h1>'
        '<div class="hu-verdicts">{}</div></header>'
    ).format(title, told)


def _verdict(run: str, judged: Verdict) -> Markup:
    lines = Markup("").join(
        Markup('<div class="hu-line"><dt>{}</dt><dd><span class="hu-word hu-{}">{} {}</span> {}</dd></div>').format(
            answer.question, _MARKS[answer.word][0], _MARKS[answer.word][1], answer.word, answer.figure
        )
        for answer in judged.answers
    )
    name = Markup("<h2>{}</h2>").format(run) if run else Markup("")
    return Markup(
        '<div class="hu-verdict">{}<dl>{}</dl><details><summary>The verdict in full</summary><p>{}</p></details></div>'
    ).format(name, lines, judged.sentence)


def _column(column: Shown, look: str) -> Markup:
    first = [replace(token, text=token.text.lstrip(" ") or token.text) for token in column.tokens[:1]]
    answer = Markup("").join(_token(token, look) for token in [*first, *column.tokens[1:]])
    state = _STATES[column.state]
    if column.state == "done" and not any(token.text and not token.end for token in column.tokens):
        answer = Markup('<span class="hu-small">(an empty answer)</span> {}').format(answer)
    likelihood = likelihood_of(column.tokens)
    foot = state
    if column.state == "done" and likelihood is not None and look != PLAIN:
        foot = (
            f"{likelihood.tokens} tokens, mean probability {_percent(likelihood.probability)}, "
            f"{likelihood.nats:.2f} nats a token"
        )
    return Markup(
        '<section class="hu-column"><h2>{}</h2><p class="hu-note">{}</p><div class="hu-answer">{}</div>'
        '<p class="hu-small">{}</p></section>'
    ).format(column.title, column.note, answer, foot)


def _token(token: Token, look: str) -> Markup:
    if look == PLAIN:
        return Markup("") if token.end else escape(token.text)
    # A space before a word has no colour of its own: at the end of a line it would look like a word.
    word = token.text if token.end else token.text.lstrip(" ") or token.text
    space = "" if token.end else token.text[: len(token.text) - len(word)]
    shown = Markup('<span class="hu-end">end</span>') if token.end else _with_breaks(word)
    if token.logp is None or not (token.text or token.end):
        return escape(space) + shown
    probability = math.exp(token.logp)
    number = Markup("<sub>{}</sub>").format(_percent(probability)) if look == NUMBERED else Markup("")
    return Markup('{}<span class="hu-t hu-p{}" title="{} ({:.2f} nats)">{}{}</span>').format(
        space, _place(probability), _percent(probability), -token.logp, shown, number
    )


def _with_breaks(text: str) -> Markup:
    """Text with line ends that can be seen, so that a token of them alone has a colour too."""
    mark = Markup("<span class='hu-break' aria-hidden='true'>↵</span>\n")
    return mark.join(escape(line) for line in text.split("\n"))


def _legend() -> Markup:
    steps = Markup("").join(
        Markup('<li><span class="hu-t hu-p{}">{}</span></li>').format(place, words)
        for place, (_, words) in enumerate(SCALE)
    )
    return Markup(
        '<div class="hu-legend"><span id="hu-legend-title">How likely the model finds each token</span>'
        '<ul aria-labelledby="hu-legend-title">{}</ul></div>'
    ).format(steps)


def _place(probability: float) -> int:
    return next(place for place, (low, _) in enumerate(SCALE) if probability >= low)


def _percent(probability: float) -> str:
    if probability < 0.001:
        return "<0.1%"
    return f"{probability:.1%}" if probability < 0.1 else f"{probability:.0%}"


def _p_words(p_value: float) -> str:
    return "< 0.001" if p_value < 0.001 else f"{p_value:.3f}"
