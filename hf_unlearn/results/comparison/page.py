"""A comparison as one HTML page, with the look of a report: who is on the front, the plane, the tables."""

from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from ..html_pages import html_environment
from ..report.figures import inline_svg
from .comparison import ComparedMethod, ComparedSetting, Comparison
from .notes import close_pairs
from .plane import plane_plot
from .tables import Table, tables_of_setting

_TEMPLATE = "comparison.html.jinja"
_WORDY = ("score (less is better)", "by", "better")  # columns of words, which stand to the left


@dataclass(frozen=True)
class _ShownTable:
    """A table on the page; `wordy` are the columns of words, `ranked` whether its second column is the rank."""

    name: str
    headers: list[str]
    rows: list[list[str]]
    notes: list[str]
    rules: list[str]
    wordy: list[int]
    ranked: bool


@dataclass(frozen=True)
class _Section:
    """A setting on the page."""

    title: str
    sentence: str
    drawings: list[Markup]
    caption: str
    tables: list[_ShownTable]
    methods: list[ComparedMethod]


def comparison_page(comparison: Comparison) -> str:
    """The page as text, which holds all that it needs."""
    return render_comparison(comparison, _TEMPLATE)


def render_comparison(comparison: Comparison, template: str, **more: Any) -> str:
    """A page of a template that extends that of comparisons.

    Args:
        comparison: of runs.
        template: its file.
        more: what it needs beside the comparison.
    """
    environment = html_environment()
    sections = [_section(number, setting) for number, setting in enumerate(comparison.settings, 1)]
    methods = sum(len(setting.methods) for setting in comparison.settings)
    runs = sum(len(method.runs) for setting in comparison.settings for method in setting.methods)
    lede = f"{_count(methods, 'method')} over {_count(runs, 'run')}: what is left of what was to be forgotten, what "
    lede += "was kept, and whether it can be traced."
    return environment.get_template(template).render(sections=sections, notes=comparison.notes, lede=lede, **more)


def _section(number: int, setting: ComparedSetting) -> _Section:
    plot = plane_plot(setting, scale=1.1)
    panels = [] if plot is None else plot.panels
    drawings = [Markup(inline_svg(panel, f"plane-{number}-{i}")) for i, panel in enumerate(panels)]
    tables = [_shown(setting, table) for table in tables_of_setting(setting)]
    caption = "" if plot is None else plot.caption
    return _Section(setting.title, setting_sentence(setting), drawings, caption, tables, setting.methods)


def _shown(setting: ComparedSetting, table: Table) -> _ShownTable:
    name = table.title.removeprefix(f"{setting.title}: ")
    ranked = name == table.title
    wordy = [place for place, header in enumerate(table.headers) if header in _WORDY]
    shown = "Ranks" if ranked else f"{name[0].upper()}{name[1:]}"
    return _ShownTable(shown, table.headers, table.rows, table.notes, table.rules, wordy, ranked)


def setting_sentence(setting: ComparedSetting) -> str:
    """Which method comes first, in what it is weakest, and which are on the front."""
    first = [method for method in setting.methods if method.standing.rank == 1]
    if not first:
        return "No method is ranked."
    named = " and ".join(method.label for method in first)
    standing = first[0].standing
    worst = first[0].shares[standing.worst].mean
    others = [method.label for method in setting.methods if method.standing.on_front and method not in first]
    front = f" Also on the front: {', '.join(others)}." if others else " No other method is on the front."
    if len(setting.methods) == 1:
        front = ""
    verb = "comes" if len(first) == 1 else "come"
    near = [other.label for better, other, *_ in close_pairs(setting.methods) if better in first]
    doubt = f" That it comes before {near[0]} is no finding." if near else ""
    return f"{named} {verb} first: the largest of its shares is {worst:.3f} ({standing.worst}).{doubt}{front}"


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"
