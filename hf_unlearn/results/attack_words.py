"""What a report of attacks says, as rows of a table and sentences: for card, page, verdict and gate alike."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .attack_report import (
    BEFORE,
    CONTROLS,
    MODEL,
    ORACLE,
    THREATS,
    UNSEEN,
    AttackFinding,
    AttackReport,
    Excess,
    SubjectLeak,
)

# What an attacker of each class has.
REACH = {
    "queries": "its answers",
    "logits": "its answers and the probabilities of tokens",
    "weights": "its weights",
    "weights_and_before": "its weights and those before unlearning",
}
SUBJECT_WORDS = {ORACLE: "oracle", UNSEEN: "never-seen rows"}
_RELEARNING, _QUANTIZATION = "relearn", "quanti"  # how the names of such attacks begin
_REMOVAL = "remove_adapter"


@dataclass(frozen=True)
class AttackRow:
    """A row of the table of attacks, in words; None where there is no figure.

    Attributes:
        attack: its name.
        has: what its attacker has.
        setting: in which it got most.
        leaks: of the model and the controls that the report has, by their names.
        excess: with its interval.
        recovered: share of the rows, in percent; None of attacks that only tell that a row was trained on.
    """

    attack: str
    has: str
    setting: str
    leaks: dict[str, str | None]
    excess: str | None
    recovered: str | None


@dataclass(frozen=True)
class WorstRow:
    """A row of the table of classes; a class that was not attacked has no attack."""

    threat: str
    has: str
    attack: str | None
    excess: str | None
    recovered: str | None


def attack_rows(report: AttackReport) -> list[AttackRow]:
    """The table of attacks, with a column for each control that any attack has."""
    shown = [MODEL, *(name for name in CONTROLS if any(name in finding.subjects for finding in report.findings))]
    return [
        AttackRow(
            attack=finding.name,
            has=f"{REACH[finding.threat]}; {finding.given}" if finding.given else REACH[finding.threat],
            setting=_best_setting(finding.subjects[MODEL]),
            leaks={name: _leak(finding.subjects.get(name)) for name in shown},
            excess=excess_words(finding.excess),
            recovered=share_words(finding.recovered) if finding.content else None,
        )
        for finding in report.findings
    ]


def worst_rows(report: AttackReport) -> list[WorstRow]:
    """The worst attack of every class, those included that were not attacked."""
    rows, attacked = [], tried_classes(report)
    for threat in THREATS:
        worst = report.worst.get(threat) if threat in attacked else None
        if worst is None:
            rows.append(WorstRow(threat, REACH[threat], None, None, None))
        else:
            excess, recovered = excess_words(worst.excess), share_words(worst.recovered)
            rows.append(WorstRow(threat, REACH[threat], worst.attack, excess, recovered))
    return rows


def tried_classes(report: AttackReport) -> list[str]:
    """The classes of which an attack of their own was tried: who has the weights can ask, but need not have tried."""
    return [threat for threat in THREATS if any(finding.threat == threat for finding in report.findings)]


def is_relearning(finding: AttackFinding) -> bool:
    """Whether it trains the model on."""
    return finding.name.startswith(_RELEARNING)


def is_quantization(finding: AttackFinding) -> bool:
    """Whether it stores the weights in fewer bits."""
    return finding.name.startswith(_QUANTIZATION)


def is_removal(finding: AttackFinding) -> bool:
    """Whether it takes the adapter off, and so attacks nothing where the adapter was merged."""
    return finding.name == _REMOVAL


def is_finite(excess: Excess | None) -> bool:
    """Whether there is a control, and a figure with an interval."""
    return excess is not None and all(map(math.isfinite, (excess.value, excess.low, excess.high)))


def is_above(excess: Excess | None) -> bool:
    """Whether its interval lies above 0: the attack gets more than from the controls."""
    return is_finite(excess) and excess is not None and excess.low > 0


def number_words(value: float) -> str:
    """Three decimals; words for what is not finite."""
    if not math.isfinite(value):
        return "undefined" if math.isnan(value) else "infinite"
    return f"{value:.3f}" if f"{value:.3f}" != "-0.000" else "0.000"


def excess_words(excess: Excess | None) -> str | None:
    """The excess with its interval; None where there is no control."""
    return None if excess is None else _with_interval(excess.value, excess.low, excess.high)


def share_words(share: float) -> str:
    """In percent."""
    return f"{share:.1%}" if math.isfinite(share) else number_words(share)


def setting_words(setting: Mapping[str, Any]) -> str:
    """A setting in a line: "rate 0.0001, step 100"."""
    return ", ".join(f"{name.replace('_', ' ')} {_scalar(value)}" for name, value in setting.items())


def relearning_words(report: AttackReport) -> list[str]:
    """How many steps of training brought half of it back, of the model and its control, a sentence each attack."""
    known = [finding for finding in report.findings if is_relearning(finding) or _half(finding) is not None]
    return [_relearning(finding) for finding in known]


def half_words(finding: AttackFinding, subject: str) -> str:
    """ "after 10 steps", "not within 100 steps" or "before any step"."""
    leak = finding.subjects[subject]
    if leak.steps_to_half is None:
        most = max((_steps(tried.setting) for tried in leak.settings), default=0)
        return f"not within {_count(most)}" if most else "not within its budget"
    return f"after {_count(leak.steps_to_half)}" if leak.steps_to_half else "before any step"


def untried_words(report: AttackReport) -> str:
    """The classes that were not attacked, in a sentence; "" where all were."""
    attacked = tried_classes(report)
    missing = [f"{threat} (who has {REACH[threat]})" for threat in THREATS if threat not in attacked]
    return f"Classes of which no attack was tried: {', '.join(missing)}." if missing else ""


def removal_words(report: AttackReport, *, adapter: bool) -> str:
    """That an adapter was there to take off when it was attacked, where none is now; "" elsewhere."""
    if adapter or not any(map(is_removal, report.findings)):
        return ""
    return f"{_REMOVAL} was tried before the adapter was merged, and is nothing that can be done to whole weights."


def skipped_words(report: AttackReport) -> str:
    """The attacks that were left out, each with its reason, in a sentence; "" where there are none."""
    reasons = [f"{name}, as {reason}" for name, reason in report.skipped.items()]
    return f"Not tried: {'; '.join(reasons)}." if reasons else ""


def how_words(report: AttackReport) -> list[str]:
    """On how many rows the figures rest, and how they are to be read, a sentence each."""
    suite = f"Suite {report.suite}. " if report.suite else ""
    sentences = [
        f"{suite}Means over {report.reported_rows:,} of the {report.attacked_rows:,} forget rows attacked, in the "
        f"setting that got most out of the others; 95% intervals in brackets; seed {report.seed}."
    ]
    controls = _controls(report)
    if controls:
        higher = ", whichever is higher" if report.oracles and report.unseen_rows else ""
        sentences.append(
            f"Excess: what is got from the model beyond {controls}{higher}. Intervals of it hold for all attacks at "
            "once; one that includes 0 does not tell the model from its control."
        )
    if not report.oracles:
        sentences.append("No retrained model was attacked as a control.")
    if not controls:
        sentences.append("There was no control at all, so nothing tells what was got from chance.")
    sentences.append(
        "Recovered: rows that give away at least half of what the model before unlearning gave away of them (without "
        "it, half of all), and more than 95% of the control's rows do."
    )
    return [*sentences, *_scores(report)]


def _controls(report: AttackReport) -> str:
    """The controls of the report, with their numbers."""
    oracles = "the oracle" if report.oracles == 1 else f"the most that {report.oracles} oracles give away"
    names = [oracles] if report.oracles else []
    names += [f"{report.unseen_rows:,} never-seen rows"] if report.unseen_rows else []
    return " and ".join(names)


def _scores(report: AttackReport) -> list[str]:
    """What a leak of 1 means, attack by attack where they differ."""
    by_score: dict[str, list[str]] = {}
    for finding in report.findings:
        by_score.setdefault(finding.score, []).append(finding.name)
    words = [f"{score} ({', '.join(names)})" if len(by_score) > 1 else score for score, names in by_score.items()]
    return [f"A leak is, from 0 to 1: {'; '.join(words)}."] if words else []


def _relearning(finding: AttackFinding) -> str:
    model, control = finding.subjects[MODEL], next((name for name in CONTROLS if name in finding.subjects), None)
    before = finding.subjects.get(BEFORE)
    if model.steps_to_half is None and (before is None or not math.isfinite(before.leak)):
        return f"{finding.name}: the model before unlearning was not attacked, so when half is back is not known."
    back = half_words(finding, MODEL)
    verb = "is there" if back == "before any step" else "was back"
    if back.startswith("not "):
        verb, back = "was not back", back.removeprefix("not ")
    other = "" if control is None else f"; of the {SUBJECT_WORDS[control]} {half_words(finding, control)}"
    return f"{finding.name}: half of what the model before unlearning gives away {verb} {back}{other}."


def _half(finding: AttackFinding) -> int | None:
    return finding.subjects[MODEL].steps_to_half


def _steps(setting: Mapping[str, Any]) -> int:
    steps = setting.get("step")
    return int(steps) if isinstance(steps, int | float) and math.isfinite(steps) else 0


def _count(steps: int) -> str:
    return "1 step" if steps == 1 else f"{steps:,} steps"


def _best_setting(leak: SubjectLeak) -> str:
    """In words; said to be no attack at all where the one in which nothing was done got most."""
    words = setting_words(leak.setting) or "-"
    nothing = bool(leak.settings) and leak.settings[0].setting == leak.setting and len(leak.settings) > 1
    return f"nothing done ({words})" if nothing else words


def _leak(leak: SubjectLeak | None) -> str | None:
    return None if leak is None else _with_interval(leak.leak, leak.low, leak.high)


def _with_interval(value: float, low: float, high: float) -> str:
    whole = math.isfinite(value) and math.isfinite(low) and math.isfinite(high)
    return f"{number_words(value)} [{number_words(low)}, {number_words(high)}]" if whole else number_words(value)


def _scalar(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
