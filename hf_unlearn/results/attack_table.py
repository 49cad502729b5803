"""A report of attacks as text for a terminal: what each got, of what, and the worst case of each class."""

from .attack_report import AttackReport
from .attack_words import SUBJECT_WORDS, attack_rows, worst_rows
from .terminal import terminal_table


def attack_table(report: AttackReport) -> str:
    """The attacks and the classes of attackers as two tables, then what was not tried and what a reader must know."""
    rows = attack_rows(report)
    names = list(rows[0].leaks) if rows else []
    heads = [SUBJECT_WORDS.get(name, name) for name in names]
    table = [
        [row.attack, row.excess, row.recovered, *(row.leaks[name] for name in names), row.setting] for row in rows
    ]
    classes = [[row.has, row.attack or "not tried", row.excess, row.recovered] for row in worst_rows(report)]
    skipped = [f"Not tried: {name}, as {why}." for name, why in report.skipped.items()]
    rows_words = (
        f"{report.reported_rows} of {report.attacked_rows} rows are reported; settings were chosen on the others. "
        f"95% intervals that hold for all attacks together. Seed {report.seed}, {report.seconds:.0f} s."
    )
    parts = [terminal_table(["attack", "excess", "recovered", *heads, "setting"], table)] if rows else []
    parts += [
        terminal_table(["attacker has", "worst attack", "excess", "recovered"], classes),
        "\n".join([rows_words, *skipped, *(f"Warning: {warning}" for warning in report.warnings)]),
    ]
    return "\n\n".join(parts)
