"""Tables for terminals, by rich: they fit the width, and are plain text where nobody looks at a terminal."""

import re
import shutil
import sys
from collections.abc import Iterable, Sequence
from io import StringIO

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..errors import input_error

_LEAST_WIDTH = 40  # of a terminal, below which lines are let run over
_GAP = 2  # between two columns
_NUMBER = r"[-+−<>~≈]?\s?(?:\d[\d,_.]*(?:e[-+]?\d+)?|nan|inf)"
# With what usually stands beside it: its unit, "of 20", its interval or spread.
_BESIDE = rf"\s?(?:%|[A-Za-zµ/]{{1,3}})?(?: of {_NUMBER})?(?:\s*(?:[\[(]{_NUMBER}|±).*)?"
_FIGURE = re.compile(rf"{_NUMBER}{_BESIDE}|\[{_NUMBER},.*\]|undefined|infinite", re.IGNORECASE)
_NOTHING = ("", "-", "–", "—")
# No bars, so that grep, cut and awk read the columns; a line of dashes below the headings.
_PLAIN = box.Box("    \n    \n -- \n    \n    \n    \n    \n    \n", ascii=True)


def terminal_table(
    headers: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    title: str | None = None,
    notes: Sequence[str] = (),
    width: int | None = None,
) -> str:
    """A table as text that fits a terminal: long cells are wrapped, columns that do not fit stand below the others.

    The first column stays whole where it can, and is said again for columns that stand below. Columns of figures go to
    the right; an interval in brackets goes below its figure before words are wrapped. Bold headings, and rules of more
    than ASCII, are for a standard output that is a terminal.

    Args:
        headers: of the columns.
        rows: the cells of each; None is shown as "-".
        title: a line above.
        notes: lines below.
        width: in columns; None for that of the terminal (or COLUMNS), 80 where there is none.

    Returns:
        the text, without a line break at its end.

    Raises:
        ValueError: a row has more or fewer cells than there are headers.
    """
    for row in rows:
        if len(row) != len(headers):
            raise input_error(
                expected=f"rows of {len(headers)} cells",
                got=f"one of {len(row)}",
                why="every cell belongs below a header",
                fix="pass None for a cell that is empty",
            )
    cells = [["-" if cell is None else str(cell) for cell in row] for row in rows]
    columns = [_Column(head, [row[at] for row in cells], is_first=at == 0) for at, head in enumerate(headers)]
    width = max(_LEAST_WIDTH, width or shutil.get_terminal_size().columns)
    is_terminal = sys.stdout.isatty()
    written = StringIO()
    console = Console(
        file=written, width=width, force_terminal=is_terminal, legacy_windows=False, highlight=False, emoji=False
    )
    if title is not None:
        console.print(Text(title, style="bold"))
    for number, block in enumerate(_blocks(columns, width)):
        if number:
            console.print()
        console.print(_rendered(block, _widths(block, width), is_terminal))
    for note in ["", *notes] if notes else []:
        console.print(Text(note))
    return "\n".join(line.rstrip() for line in written.getvalue().rstrip("\n").split("\n"))


class _Column:
    """A column: its cells, and the widths between which it can be set."""

    def __init__(self, head: str, cells: list[str], is_first: bool) -> None:
        self.head, self.cells = head, cells
        shown = [cell for cell in cells if cell not in _NOTHING]
        self.is_figures = not is_first and bool(shown) and all(_FIGURE.fullmatch(cell) for cell in shown)
        self.whole = _longest([head, *cells])
        # No figure is taken apart, only its interval put below it.
        self.apart = [re.sub(r"\s+(?=[\[(±])", "\n", cell, count=1) for cell in cells] if self.is_figures else cells
        words = self.apart if self.is_figures else [word for cell in cells for word in cell.split()]
        self.least = _longest([*head.split(), *words])

    def set_in(self, width: int) -> list[str]:
        """The cells as they are set in a width."""
        return self.cells if width >= _longest(self.cells) else self.apart


def _longest(texts: Iterable[str]) -> int:
    return max((cell_len(line) for text in texts for line in text.split("\n")), default=0)


def _blocks(columns: list[_Column], width: int) -> list[list[_Column]]:
    """The columns that fit beside the first one, then further ones beside it again."""
    if sum(column.least for column in columns) + _GAP * (len(columns) - 1) <= width:
        return [columns]
    first, *others = columns
    blocks: list[list[_Column]] = [[first]]
    for column in others:
        # Short texts stay whole where there are several blocks anyway.
        sizes = [one.whole if one.whole <= width // 4 else one.least for one in (*blocks[-1], column)]
        if sum(sizes) + _GAP * (len(sizes) - 1) > width and len(blocks[-1]) > 1:
            blocks.append([first])
        blocks[-1].append(column)
    return blocks


def _widths(columns: list[_Column], width: int) -> list[int]:
    """A width for each column: texts give way first, then figures their intervals, the first column last."""
    widths = [column.whole for column in columns]
    room = width - _GAP * (len(widths) - 1)
    figures = [at for at, column in enumerate(columns) if column.is_figures]
    texts = [at for at, column in enumerate(columns) if at and not column.is_figures]
    if sum(widths) > room:  # all at once: columns of the same kind look the same
        widths = [column.least if column.is_figures else column.whole for column in columns]
    for giving, least in ((texts, None), ([0], None), (figures + texts + [0], 1)):
        while sum(widths) > room:
            # The widest of those that have something to give; at last words that are wider than the terminal.
            able = [at for at in giving if widths[at] > (columns[at].least if least is None else least)]
            if not able:
                break
            widths[max(able, key=widths.__getitem__)] -= 1
    return widths


def _rendered(columns: list[_Column], widths: list[int], is_terminal: bool) -> Table:
    table = Table(
        box=box.SIMPLE_HEAD if is_terminal else _PLAIN,
        show_edge=False,
        pad_edge=False,
        padding=(0, _GAP - 1, 0, 0),
        header_style="bold",
    )
    for column, width in zip(columns, widths, strict=True):
        table.add_column(
            Text(column.head), width=width, justify="right" if column.is_figures else "left", overflow="fold"
        )
    for row in zip(*(column.set_in(width) for column, width in zip(columns, widths, strict=True)), strict=True):
        # As Text: in a string, rich would take an interval for its markup.
        table.add_row(*(Text(cell) for cell in row))
    return table
