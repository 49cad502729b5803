"""The attacks section of a card: what attacks got beside their controls, and what was not tried."""

from ..attack_report import MODEL, AttackReport
from ..attack_words import (
    SUBJECT_WORDS,
    attack_rows,
    how_words,
    is_quantization,
    is_relearning,
    relearning_words,
    removal_words,
    skipped_words,
    untried_words,
    worst_rows,
)
from ..record import RunRecord
from ..table import description_of
from ..verdict import membership, oracle_words, side_by_side
from .text import NO_FIGURE, code, finite, listed, number, plain, table

_KINDS = (("relearning", "relearn", is_relearning), ("quantisation", "quanti", is_quantization))
_WORDING = ("wording", "paraphras", "prompt", "jailbreak")


def attack_sections(record: RunRecord, *, adapter: bool) -> list[str]:
    """The blocks of the section: the report of attacks, the user's own table, and what was not tried.

    Args:
        record: of the run.
        adapter: whether the weights beside the card are an adapter, not a whole model.
    """
    report = record.attack_report
    blocks = [] if report is None or not report.findings else _report(report, record, adapter=adapter)
    return [block for block in (*blocks, attack_table(record), attack_words(record)) if block]


def _report(report: AttackReport, record: RunRecord, *, adapter: bool) -> list[str]:
    sentences = how_words(report)
    if report.oracles:
        sentences.append(f"The oracle is {oracle_words(record)}.")
    notes = [*relearning_words(report), removal_words(report, adapter=adapter)]
    notes += [untried_words(report), skipped_words(report), *report.warnings]
    return [
        _findings(report),
        " ".join(plain(sentence) for sentence in sentences),
        "The worst attack of each class; who has more can do what those with less can:",
        _worst(report),
        "\n".join(f"- {plain(note)}" for note in notes if note),
    ]


def _findings(report: AttackReport) -> str:
    rows = attack_rows(report)
    controls = [name for name in rows[0].leaks if name != MODEL]
    header = ["attack", "attacker has", "best setting", "leak", *map(SUBJECT_WORDS.__getitem__, controls)]
    lines = [
        [
            code(row.attack),
            plain(row.has),
            plain(row.setting),
            *(row.leaks[name] or NO_FIGURE for name in (MODEL, *controls)),
            row.excess or NO_FIGURE,
            row.recovered or NO_FIGURE,
        ]
        for row in rows
    ]
    return table([*header, "excess", "rows recovered"], lines)


def _worst(report: AttackReport) -> str:
    lines = [
        [code(row.threat), row.has, code(row.attack), row.excess or NO_FIGURE, row.recovered or NO_FIGURE]
        if row.attack
        else [code(row.threat), row.has, "not attacked", NO_FIGURE, NO_FIGURE]
        for row in worst_rows(report)
    ]
    return table(["class", "attacker has", "worst attack", "excess", "rows recovered by any"], lines)


def attack_table(record: RunRecord) -> str:
    """What was tried and how it ended; "" where nothing was."""
    held = {True: "yes", False: "no", None: NO_FIGURE}
    rows = [
        [
            plain(attack.name),
            plain(attack.settings) or NO_FIGURE,
            plain(attack.outcome) or NO_FIGURE,
            held[attack.held],
        ]
        for attack in record.attacks
    ]
    return table(["attack", "settings", "outcome", "held"], rows) if rows else ""


def attack_words(record: RunRecord) -> str:
    """What was not tried, and what the evaluation has of it."""
    after = record.evaluations.get("after")
    metrics = {} if after is None else after.metrics
    names = " ".join(attack.name.lower() for attack in record.attacks)
    findings = [] if record.attack_report is None else record.attack_report.findings
    other_wordings = any(name.startswith("in_scope_") for name in metrics)
    missing = [name for name, stem, is_kind in _KINDS if stem not in names and not any(map(is_kind, findings))]
    worded = f"{names} {' '.join(finding.name for finding in findings if finding.threat == 'queries')}"
    if not other_wordings and not any(stem in worded for stem in _WORDING):
        missing.append("other wordings of the prompts")
    sentences = []
    if missing:
        sentences.append(f"Not tried: {listed(missing)}, which may bring back what seems gone here.")
    if other_wordings:
        sentences.append("Other wordings of the forget prompts were measured by the suite.")
    attack = membership(side_by_side(record.evaluations))
    if attack is not None:
        sentences.insert(0, plain(f"{attack.words[0].upper()}{attack.words[1:]}."))
    attacks = {name: description_of(name, [after] if after else []).attack for name in metrics}
    aucs = {attack: finite(metrics[name].value) for name, attack in attacks.items() if attack}
    figures = [f"{plain(attack)} {number(value)}" for attack, value in aucs.items() if value is not None]
    if len(figures) > 1:
        sentences.insert(1, f"AUC of each of the suite's attacks: {', '.join(figures)}.")
    return " ".join(sentences)
