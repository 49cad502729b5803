"""A report of attacks as text for a terminal: what each got, of what, and the worst case of each class."""

from .attack_report import AttackReport
from .attack_words import SUBJECT_WORDS, attack_rows, worst_rows
from .table import aligned


def attack_table(report: AttackReport) -> str:
    """The attacks and the classes of attackers as two tables, then what was not tried and what a reader must know."""
    rows = attack_rows(report)
    names = list(rows[0].leaks) if rows else []
    heads = [SUBJECT_WORDS.get(name, name) for name in names]
    table = [["attack", "setting", *heads, "excess", "recovered"]]
    table += [
        [row.attack, row.setting, *(row.leaks[name] or "-" for name in names), row.excess or "-", row.recovered or "-"]
        for row in rows
    ]
    classes = [["attacker has", "worst attack", "excess", "recovered"]]
    classes += [
        [row.has, row.attack or "not tried", row.excess or "-", row.recovered or "-"] for row in worst_rows(report)
    ]
    skipped = [f"Not tried: {name}, as {why}." for name, why in report.skipped.items()]
    rows_words = (
        f"{report.reported_rows} of {report.attacked_rows} rows are reported; settings were chosen on the others. "
        f"95% intervals that hold for all attacks together. Seed {report.seed}, {report.seconds:.0f} s."
    )
    parts = [aligned(table)] if rows else []
    parts += [
        aligned(classes),
        "\n".join([rows_words, *skipped, *(f"Warning: {warning}" for warning in report.warnings)]),
    ]
    return "\n\n".join(parts)
