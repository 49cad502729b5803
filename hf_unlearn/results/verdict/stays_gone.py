"""Whether what was forgotten stays gone: what attacks got back, and whether the rows are still told from others."""

from collections.abc import Mapping, Sequence
from typing import Literal

from ..attack_report import MODEL, AttackFinding, AttackReport
from ..attack_words import (
    excess_words,
    half_words,
    is_above,
    is_finite,
    is_quantization,
    is_relearning,
    is_removal,
    number_words,
    share_words,
)
from ..evaluation_result import EvaluationResult
from ..phase_record import suppression_of
from ..record import RunRecord
from .attacked import counts
from .figures import metric_of
from .membership import membership
from .never_seen import never_seen
from .quality import forget_quality
from .words import list_words, sentence_of, short_figure

_Said = tuple[Literal["yes", "mostly", "no", "not tested"], str, str]
_CONTROLS = {"oracle": "the oracle", "unseen": "unseen rows"}


def stays_gone(record: RunRecord, results: Mapping[str, EvaluationResult], *, removed: bool) -> _Said:
    """Word, figure and details of the answer, by the rules of `answers.ANSWER_RULES`.

    Args:
        record: of the run.
        results: of it, those that stand side by side.
        removed: whether there is something gone that could come back.
    """
    report = record.attack_report or AttackReport()
    word, figure, reason = _came_back(record, report) or _held(record, report, results, removed)
    return word, figure, " ".join([sentence_of(reason), *_tested(record, report)])


def _came_back(record: RunRecord, report: AttackReport) -> _Said | None:
    """The answer where it is no; None for others."""
    back = [finding for finding in report.findings if counts(finding) and is_above(finding.excess) and finding.content]
    if back:
        got = [f"{finding.name} ({share_words(finding.recovered)} of the rows)" for finding in back]
        halves = [
            f"half of it was back {half_words(f, MODEL)} ({f.name})"
            for f in back
            if f.subjects[MODEL].steps_to_half is not None
        ]
        return "no", _most(back), "; ".join([f"attacks got back what rows say: {list_words(got)}", *halves])
    failed = [attack.name for attack in record.attacks if attack.held is False]
    if failed:
        return (
            "no",
            f"did not hold under {failed[0]}",
            f"the user found that it does not hold under {list_words(failed)}",
        )
    if suppression_of(record) is not None:
        words = "the answers are suppressed at inference, and whoever has the weights takes that off"
        return "no", "the weights still know", words
    return None


def _held(record: RunRecord, report: AttackReport, results: Mapping[str, EvaluationResult], removed: bool) -> _Said:
    """The answer where nothing is known to have come back."""
    if not removed:
        return "not tested", "nothing is gone", "what is not gone cannot be seen to come back"
    traced = _traced(report, results)
    untried = _untried(report)
    if untried:
        if traced:
            return "not tested", f"{untried}; still traceable: {traced[0]}", traced[1]
        figure = "; ".join([untried, *_membership_figure(results)])
        return "not tested", figure, "whether training or quantisation brings it back is open"
    if traced:
        return "mostly", traced[0], f"nothing came back, but {traced[1]}"
    nothing = _nothing([finding for finding in report.findings if counts(finding) and is_finite(finding.excess)])
    unknown = _unknown(report)
    if unknown:
        return "mostly", nothing, f"nothing came back, but the figures say nothing of {list_words(unknown)}"
    if record.removable_adapter:
        return "mostly", f"{nothing}; the adapter comes off", "nothing came back while the adapter was on"
    return "yes", nothing, f"nothing came back, as far as {report.reported_rows:,} rows tell"


def _untried(report: AttackReport) -> str:
    """What keeps the attacks from saying that it stays gone, in words; "" where they can."""
    strong = [finding for finding in report.findings if finding.threat == "weights" and _is_strong(finding)]
    if any(is_finite(finding.excess) for finding in strong):
        return ""
    if strong:
        return "attacked without a control"
    return "no relearning or quantisation tried" if report.findings else "not attacked"


def _is_strong(finding: AttackFinding) -> bool:
    return is_relearning(finding) or is_quantization(finding)


def _traced(report: AttackReport, results: Mapping[str, EvaluationResult]) -> tuple[str, str] | None:
    """A figure and a clause of what tells the forget rows from rows never seen; None where nothing does."""
    mine = [finding for finding in report.findings if counts(finding)]
    telling = [finding for finding in mine if is_above(finding.excess) and not finding.content]
    if telling:
        return _most(telling), f"attacks tell the rows from rows never seen: {_names(telling)}"
    member, quality, losses = membership(results), forget_quality(results), never_seen(results)
    if member is not None and member.found in ("member", "unlikely"):
        return _membership_figure(results)[0], member.words
    if quality is not None and quality.told:
        return short_figure(quality.metric, ("after",)), quality.words
    if losses is not None and losses.told:
        return losses.tells[0], losses.words
    less = [f for f in mine if f.excess is not None and is_finite(f.excess) and f.excess.high < 0]
    if less:
        return _most([min(less, key=_excess)]), f"attacks got less than from the controls: {_names(less)}"
    return None


def _unknown(report: AttackReport) -> list[str]:
    """The attacks without an interval, and the classes whose largest excess lies above 0 though no single one does."""
    mine = [finding for finding in report.findings if counts(finding)]
    names = [finding.name for finding in mine if not is_finite(finding.excess)]
    counted = {finding.name for finding in mine}
    classes = {name: worst for name, worst in report.worst.items() if name != "weights_and_before"}
    return names + [
        f"the worst of {name}" for name, worst in classes.items() if worst.attack in counted and is_above(worst.excess)
    ]


def _tested(record: RunRecord, report: AttackReport) -> list[str]:
    """What was tried and what was not, and what who holds the model before unlearning has, a sentence each."""
    said = []
    if report.findings:
        skipped = f"; not tried: {list_words(list(report.skipped))}" if report.skipped else ""
        said.append(f"Tried: {_names(report.findings)}, on {report.reported_rows:,} rows{skipped}.")
    else:
        said.append("No attack of this package was tried.")
    if record.attacks:
        names = list_words([attack.name for attack in record.attacks])
        said.append(f"On record by the user, without figures: {names}.")
    both = [f for f in report.findings if is_above(f.excess) and not counts(f) and not is_removal(f)]
    if both:
        said.append(f"Who has the model before unlearning too gets more: {_names(both)}.")
    if record.removable_adapter:
        said.append("Without its adapter it is the model before unlearning, for whoever has both.")
    return said


def _most(findings: Sequence[AttackFinding]) -> str:
    """What the one of them gets that gets most: "relearn gets 0.600 more than from the oracle"."""
    most = max(findings, key=_excess)
    way = "less" if _excess(most) < 0 else "more"
    return f"{most.name} gets {number_words(abs(_excess(most)))} {way} than from {_control(most)}"


def _nothing(findings: Sequence[AttackFinding]) -> str:
    """That none of them is shown to get more, with the largest excess and its interval."""
    most = max(findings, key=_excess)
    return f"nothing beyond {_control(most)}: {most.name} {excess_words(most.excess)}"


def _excess(finding: AttackFinding) -> float:
    return 0.0 if finding.excess is None else finding.excess.value


def _control(finding: AttackFinding) -> str:
    return "the controls" if finding.excess is None else _CONTROLS[finding.excess.control]


def _names(findings: Sequence[AttackFinding]) -> str:
    return list_words([finding.name for finding in findings])


def _membership_figure(results: Mapping[str, EvaluationResult]) -> list[str]:
    """The AUC of the suite's membership attack and the oracle's, where it has one."""
    attack = membership(results)
    if attack is None:
        return []
    metric = metric_of(attack.metric, results)
    oracle = [f"oracle {metric.figures['oracle'].value:.2f}"] if "oracle" in metric.figures else []
    return [", ".join([f"{metric.label} {metric.figures['after'].value:.2f}", *oracle])]
