"""What attacks found, as a clause of the verdict, and whether they keep a run from counting as forgotten."""

from dataclasses import dataclass, replace

from ..attack_report import MODEL, ORACLE, AttackFinding, AttackReport, Excess
from ..attack_words import (
    excess_words,
    half_words,
    is_above,
    is_finite,
    is_quantization,
    is_relearning,
    is_removal,
    tried_classes,
)
from ..record import AttackRecord, RunRecord

_NAMED = 3  # attacks that the sentence names with their figures


@dataclass(frozen=True)
class Attacked:
    """What attacks say.

    Attributes:
        back: whether an attack gets more of what rows say than from the controls, without being given the model before
            unlearning.
        told: whether one tells the rows from those that the oracle was not trained on, without getting what they say.
        words: a clause for the sentence.
    """

    back: bool
    told: bool
    words: str


def attacked(record: RunRecord) -> Attacked:
    """The attacks of this package and those that the user put on record."""
    report = record.attack_report
    clauses = [_by_others(record.attacks)] if record.attacks else []
    findings = [] if report is None else report.findings
    if report is not None and findings:
        clauses.append(_by_report(report))
    if not clauses:
        return Attacked(False, False, "no relearning or other attack was tried on it")
    counted = [finding for finding in findings if _gets_more(finding)]
    told = any(not finding.content and ORACLE in finding.subjects for finding in counted)
    return Attacked(any(finding.content for finding in counted), told, "; ".join(clauses))


def counts(finding: AttackFinding) -> bool:
    """Whether what it gets counts: its attacker does not hold the model before, under an adapter or beside it."""
    return not is_removal(finding) and finding.threat != "weights_and_before"


def _gets_more(finding: AttackFinding) -> bool:
    return is_above(finding.excess) and counts(finding)


def _by_report(report: AttackReport) -> str:
    above = sorted(
        (finding for finding in report.findings if is_above(finding.excess)),
        key=lambda finding: -_value(finding),
    )
    if any(map(_gets_more, above)):
        return _more(above, report)
    # What is left is of attackers who hold the model before unlearning: the others have still to be spoken of.
    others = replace(report, findings=[finding for finding in report.findings if finding not in above])
    clauses = [_held(above)] if above else []
    clauses += [_without_more(others, {finding.name for finding in above})] if others.findings else []
    return "; ".join(clauses)


def _held(above: list[AttackFinding]) -> str:
    """What attackers get who hold the model before unlearning, or its weights under an adapter."""
    removal = [finding for finding in above if is_removal(finding)]
    both = [finding for finding in above if not is_removal(finding)]
    clauses = [f"without its adapter it is the model before unlearning ({_figures(removal)})"] if removal else []
    clauses += [f"who has the model before unlearning too gets more ({_figures(both)})"] if both else []
    return "; ".join(clauses)


def _without_more(report: AttackReport, others: set[str]) -> str:
    """What is said of attacks of which none is shown to get more; `others` are those that were spoken of."""
    names = ", ".join(finding.name for finding in report.findings)
    known = [finding for finding in report.findings if is_finite(finding.excess)]
    if not known:
        return f"attacks were tried on it ({names}), with no control that tells what they got from chance"
    less = [finding for finding in known if finding.excess is not None and finding.excess.high < 0]
    if less:
        figures = ", ".join(f"{finding.name} {excess_words(finding.excess)}" for finding in less[:_NAMED])
        return f"attacks got less from it than from {_control(report)} ({figures}), which tells them apart too"
    return _no_more(known, report, others)


def _more(above: list[AttackFinding], report: AttackReport) -> str:
    got = [finding for finding in above if finding.content]
    telling = [finding for finding in above if not finding.content]
    clauses = [f"attacks got more from it than from {_control(report)} ({_figures(got)})"] if got else []
    for finding in got:
        if is_relearning(finding) and finding.subjects[MODEL].steps_to_half is not None:
            oracle = f"; the oracle: {half_words(finding, ORACLE)}" if ORACLE in finding.subjects else ""
            clauses.append(f"half of it came back {half_words(finding, MODEL)} ({finding.name}{oracle})")
    if any(is_removal(finding) for finding in got):
        clauses.append("without its adapter it is the model before unlearning")
    if telling:
        clauses.append(f"attacks told the rows from rows never seen ({_figures(telling)})")
    return "; ".join(clauses)


def _figures(findings: list[AttackFinding]) -> str:
    named = [f"{finding.name} {excess_words(finding.excess)}" for finding in findings[:_NAMED]]
    more = len(findings) - _NAMED
    return f"excess: {', '.join([*named, *([f'{more} more'] if more > 0 else [])])}"


def _no_more(known: list[AttackFinding], report: AttackReport, others: set[str]) -> str:
    """That nothing more was got, as far as all of the intervals, the rows and the attacks tried carry it."""
    classes = tried_classes(report)
    largest = max(known, key=_value)
    figures = f"largest excess {largest.name} {excess_words(largest.excess)}"
    tried = f"no {'other ' if others else ''}attack that was tried ({', '.join(classes)}) got more from it than from"
    rows = f"as far as {report.reported_rows:,} rows tell ({figures})"
    unknown = [finding.name for finding in report.findings if not is_finite(finding.excess)]
    worst = {name: report.worst[name] for name in classes if name in report.worst}
    unknown += [f"the worst of {name}" for name, w in worst.items() if w.attack not in others and not _holds(w.excess)]
    if unknown:
        none = f"of the attacks with a control none got more from it than from {_control(report)}"
        return f"{none}, {rows}, which says nothing of {', '.join(unknown)}"
    strong = [finding for finding in known if finding.threat == "weights"]
    if not any(is_relearning(finding) or is_quantization(finding) for finding in strong):
        return f"{tried} {_control(report)}, {rows}, but no relearning or quantisation of its weights was tried"
    left_out = f"; not tried: {', '.join(report.skipped)}" if report.skipped else ""
    return f"{tried} {_control(report)}, {rows}{left_out}"


def _holds(excess: Excess | None) -> bool:
    """Whether the interval holds 0."""
    return excess is not None and is_finite(excess) and excess.low <= 0 <= excess.high


def _control(report: AttackReport) -> str:
    """What the model was compared with: a model that never saw the rows only where every attack ran on it."""
    if report.findings and all(ORACLE in finding.subjects for finding in report.findings):
        return "the oracle, which never saw the rows"
    return "the controls (the oracle, rows never seen)" if report.oracles else "rows never seen"


def _value(finding: AttackFinding) -> float:
    return finding.excess.value if finding.excess is not None else 0.0


def _by_others(attacks: list[AttackRecord]) -> str:
    failed = [attack.name for attack in attacks if attack.held is False]
    if failed:
        return f"it did not hold under attack ({', '.join(failed)})"
    names = ", ".join(attack.name for attack in attacks)
    if all(attack.held for attack in attacks):
        return f"it held under the attacks that were tried ({names})"
    return f"attacks were tried on it ({names})"
