"""Plots of a report of attacks: the excess of each attack, and what it got over its steps, bits, queries or layers."""

import math
from collections.abc import Mapping
from typing import Any

from ..attack_report import BEFORE, MODEL, ORACLE, UNSEEN, AttackFinding, AttackReport, SubjectLeak
from ..attack_words import excess_words, is_finite, is_relearning
from ..record import ATTACK_PLOTS
from .charts import bars_chart, course_chart, panel_of
from .drawings import Bar, Level, Line, draw_bars, draw_course
from .figures import Panel, Plot

# How each subject is drawn, and what the legend calls it; the model last, above the others.
_SUBJECTS = {
    BEFORE: ("before", "before"),
    UNSEEN: ("holdout", "never seen"),
    ORACLE: ("oracle", "oracle"),
    MODEL: ("after", "model"),
}
_DASHES = {UNSEEN: (0, (6, 2, 1, 2))}  # told from the oracle's without colours, too
# What an attack varies, the first first where it varies several, and what its axis is called.
_UNITS = {"step": "training step", "bits": "bits a weight", "queries": "queries", "layer": "layer", "k": "samples"}
_FEWEST = 3  # points of a course
_ROWS = 6  # bars that fit into a panel of the usual height


def excess_plot(report: AttackReport | None) -> Plot | None:
    """The excess of each attack with its interval; None where no attack has a control."""
    known = [] if report is None else [finding for finding in report.findings if is_finite(finding.excess)]
    bars = [
        Bar(finding.name, finding.excess.value, finding.excess.low, finding.excess.high)
        for finding in known
        if finding.excess is not None
    ]
    if not bars:
        return None
    summary = "; ".join(f"{finding.name} {excess_words(finding.excess)}" for finding in known)
    caption = (
        "What each attack gets from the model beyond the most that it gets from a control, with 95% intervals that "
        "hold for all attacks at once. A bar whose interval includes 0 does not tell the model from its control."
    )
    words, height = f"Excess with its interval: {summary}", max(1.0, len(bars) / _ROWS)
    unit = "excess over the controls"
    panel = panel_of(draw_bars, bars_chart, words, scale=1.2, height=height, bars=bars, unit=unit)
    return Plot(f"{ATTACK_PLOTS}_excess", "Excess by attack", caption, [panel])


def courses_plot(report: AttackReport | None) -> Plot | None:
    """What attacks got over what they vary: steps, bits, queries, layers; None where none has such a course."""
    panels = []
    for finding in [] if report is None else report.findings:
        axis = course_of(finding)
        if axis is not None:
            panels.append(_panel(finding, axis))
    if not panels:
        return None
    caption = (
        "The mean leak over what an attack varies, its other settings as in the one in which it got most out of that "
        "model. A cross is a setting in which the attacked model lost too much of its utility, and which does not "
        "count. What an attack gets of a model that never saw the rows is chance: what lies above the oracle and the "
        "never-seen rows is what was left to be got."
    )
    return Plot(f"{ATTACK_PLOTS}_courses", "Leak over what an attack varies", caption, panels)


def course_of(finding: AttackFinding) -> str | None:
    """The number that an attack varies: the first of _UNITS, else that of most values; None without such."""
    leaks = list(finding.subjects.values())
    names = dict.fromkeys(name for leak in leaks for tried in leak.settings for name in tried.setting)
    counts = {name: max(len(course(leak, name)) for leak in leaks) for name in names}
    varied = [name for name, count in counts.items() if count >= _FEWEST]
    named = [name for name in _UNITS if name in varied]
    return named[0] if named else max(varied, key=counts.__getitem__) if varied else None


def course(leak: SubjectLeak, axis: str) -> list[tuple[float, float, bool]]:
    """(value of `axis`, leak, whether it counts) of the settings whose other numbers are those of the chosen one.

    Where several have one value, that stands which shares most words with the chosen one: of two formats of four bits
    the one that was chosen. A setting that lacks a name, as the one in which nothing was done, is of every course.
    """
    best: dict[float, tuple[int, float, bool]] = {}
    for tried in leak.settings:
        x = _number(tried.setting.get(axis))
        others = {name: value for name, value in tried.setting.items() if name != axis and name in leak.setting}
        if x is None or not math.isfinite(tried.reported):
            continue
        if any(_number(value) is not None and value != leak.setting[name] for name, value in others.items()):
            continue
        shared = sum(value == leak.setting[name] for name, value in others.items())
        if x not in best or shared > best[x][0]:
            best[x] = (shared, tried.reported, tried.kept)
    return [(x, *best[x][1:]) for x in sorted(best)]


def _panel(finding: AttackFinding, axis: str) -> Panel:
    lines = []
    for subject, (kind, label) in _SUBJECTS.items():
        points = course(finding.subjects[subject], axis) if subject in finding.subjects else []
        if points:
            crossed = [(x, y) for x, y, kept in points if not kept]
            lines.append(Line(label, kind, [(x, y) for x, y, _ in points], _DASHES.get(subject), crossed))
    ends = ", ".join(f"{line.label} from {line.points[0][1]:.3g} to {line.points[-1][1]:.3g}" for line in lines)
    unit = _UNITS.get(axis, axis.replace("_", " "))
    words = f"{finding.name}, mean leak over {unit}: {ends}"
    levels = _half(finding.subjects, finding)
    return panel_of(draw_course, course_chart, words, title=finding.name, unit=unit, lines=lines, levels=levels)


def _half(subjects: Mapping[str, SubjectLeak], finding: AttackFinding) -> list[Level]:
    """Half of what the model before unlearning gave away untouched, which relearning is timed by."""
    before = subjects.get(BEFORE)
    if before is None or not is_relearning(finding) or not math.isfinite(before.untouched):
        return []
    return [Level("half of before", before.untouched / 2, before.untouched / 2)]


def _number(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and math.isfinite(value) else None
