"""Metrics of answers that a judge flagged, for suites that take one: rates, worst of phrasings, judge's errors."""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import replace
from typing import Any

from ... import metrics
from ...errors import input_error
from ..evidence import Evidence
from ..judges.judge import Judge
from ..judges.judgement import CountingJudge, Judgement, error_words, judge_answers, require_leaks
from ..suite import SuiteOutput

# Of the rows of forget and in scope, in their order, what their questions are about; None where nobody says.
Groups = list[Hashable] | None
_SETS = ("forget", "in_scope")


def leaks(judge: Judge, arguments: Mapping[str, Any], phrasing_of: str | None) -> Callable[[Evidence], SuiteOutput]:
    """What a suite adds for a judge of leaks: `leak_rate` and what stands beside it.

    Args:
        judge: of answers.
        arguments: of the suite, with its sets of rows.
        phrasing_of: column that says what a question is about; None for no worst case.
    """
    require_leaks(judge)
    groups = phrasing_groups(arguments, phrasing_of)
    return lambda evidence: judged_rates(evidence, judge, "leak_rate", groups)[1]


def judged_rates(
    evidence: Evidence, judge: Judge, name: str, groups: Groups
) -> tuple[tuple[bool | None, ...], SuiteOutput]:
    """The flags of the answers to forget prompts, and the rates of flagged answers.

    `name` of forget answers, `in_scope_{name}` of those in other words, with groups `worst_{name}` over all phrasings
    of a row. Of a judge that may fail also `judge_errors`, and of one that was compared with people `judge_kappa` and
    `judge_accuracy`.
    """
    found = {
        of: judge_answers(judge, evidence.answered[of].answers, evidence.answered[of].expected)
        for of in _SETS
        if of in evidence.answered
    }
    forget = found["forget"]
    measured = {name: metrics.judged_rate(forget.values)}
    every = [value for judgement in found.values() for value in judgement.values]
    if "in_scope" in found:
        measured[f"in_scope_{name}"] = metrics.judged_rate(found["in_scope"].values)
    if groups is not None:
        measured[f"worst_{name}"] = metrics.judged_rate(metrics.worst_over_phrasings(every, groups))
    added = what_judge_adds(judge, found)
    return forget.flags, replace(added, metrics=measured | added.metrics)


def what_judge_adds(judge: Judge | None, found: Mapping[str, Judgement]) -> SuiteOutput:
    """Of a judge that may fail: its errors, its agreement with people, warnings, and how it was asked.

    Args:
        judge: of answers; None and other judges add nothing.
        found: by set, what it found.
    """
    if not isinstance(judge, CountingJudge) or not found:
        return SuiteOutput({})
    measured = {"judge_errors": metrics.judge_errors([value for own in found.values() for value in own.values])}
    if judge.agreement is not None:
        measured |= {"judge_kappa": judge.agreement.kappa, "judge_accuracy": judge.agreement.accuracy}
    run = judge.record() | {"sets": {of: {"errors": dict(own.errors), **own.run} for of, own in found.items()}}
    return SuiteOutput(measured, warnings=_warnings(found), run={"judge": run})


def phrasing_groups(arguments: Mapping[str, Any], phrasing_of: str | None) -> Groups:
    """What the questions of forget and in-scope rows are about, by a column of both.

    Raises:
        ValueError: a set without that column.
    """
    if phrasing_of is None:
        return None
    groups: list[Hashable] = []
    for name in _SETS:
        rows = arguments.get(name)
        if rows is None:
            continue
        lacking = sum(phrasing_of not in row for row in rows)
        if lacking:
            raise input_error(
                expected=f"a column {phrasing_of!r} in the {name} rows",
                got=f"{lacking} of {len(rows)} rows without it",
                why="it says which questions are phrasings of one row",
                fix="add it to both sets, or leave phrasing_of out",
            )
        groups += [str(row[phrasing_of]) for row in rows]
    return groups


def _warnings(found: Mapping[str, Judgement]) -> list[str]:
    """What a reader must know of answers that the judge failed at."""
    warnings = []
    for name, own in found.items():
        if not own.unjudged:
            continue
        low, high = metrics.judged_bounds(own.values)
        share = own.unjudged / len(own.flags)
        so = "so the rate is not measured" if share > metrics.MOST_UNJUDGED else "as the interval allows for"
        warnings.append(
            f"The judge failed at {own.unjudged} of {len(own.flags)} {name} answers ({error_words(own.errors)}), "
            f"{so}: {low:.1%} are flagged if none of them is, {high:.1%} if all are."
        )
    return warnings
