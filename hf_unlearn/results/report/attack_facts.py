"""What a page says of the attacks on a run: the rows of its tables, and sentences."""

from dataclasses import dataclass

from ..attack_report import MODEL
from ..attack_words import (
    SUBJECT_WORDS,
    AttackRow,
    WorstRow,
    attack_rows,
    how_words,
    relearning_words,
    removal_words,
    skipped_words,
    untried_words,
    worst_rows,
)
from ..record import RunRecord


@dataclass(frozen=True)
class AttackFacts:
    """The attacks of this package on a run.

    Attributes:
        rows: of the table of attacks.
        subjects: columns of it, by name, with what they are called.
        worst: rows of the table of classes.
        how: how the figures are to be read, a sentence each.
        notes: what relearning took, what was not tried, and warnings.
    """

    rows: list[AttackRow]
    subjects: dict[str, str]
    worst: list[WorstRow]
    how: list[str]
    notes: list[str]


def attack_facts(record: RunRecord) -> AttackFacts | None:
    """Of a run; None where nothing was tried."""
    report = record.attack_report
    if report is None or not report.findings:
        return None
    rows = attack_rows(report)
    adapter = record.model.adapter is not None and not record.model.merged
    notes = [*relearning_words(report), removal_words(report, adapter=adapter)]
    notes += [untried_words(report), skipped_words(report), *report.warnings]
    return AttackFacts(
        rows=rows,
        subjects={name: "leak" if name == MODEL else SUBJECT_WORDS[name] for name in rows[0].leaks},
        worst=worst_rows(report),
        how=how_words(report),
        notes=[note for note in notes if note],
    )
