"""The decisions of a gate as a table for people, with the reasons below."""

from ..answers_table import answers_table
from ..attack_words import number_words, share_words
from ..terminal import terminal_table
from .decide import Decision, Gate
from .policy import WAYS


def gate_table(decided: Gate) -> str:
    """A line for each way of release, why ways are refused, what else who releases it must know, and the verdict."""
    refused = [decision.way for decision in decided.ways if not decision.released]
    first = f"Refused by the policy {decided.policy}: {', '.join(refused)}."
    if not refused:
        first = f"Released by the policy {decided.policy}: {', '.join(decision.way for decision in decided.ways)}."
    header = ["way", "exposes", "attacks", "largest excess", "rows recovered", "decision"]
    table = terminal_table(header, [_row(decision) for decision in decided.ways])
    reasons = []
    for decision in decided.ways:
        if decision.reasons:
            reasons += [f"{decision.way} ({WAYS[decision.way].words}):", *(f"- {why}" for why in decision.reasons)]
    kept = "" if decided.utility is None else f" {decided.utility:.1%} of the utility was kept."
    basis = f"On {decided.rows:,} rows.{kept} The largest excess is the upper end of its interval."
    notes = [f"Note: {note}" for note in decided.notes]
    return "\n".join([first, "", table, "", *reasons, basis, *notes, "", answers_table(decided.answers)])


def _row(decision: Decision) -> list[str]:
    excess = "-" if decision.excess is None else f"{number_words(decision.excess)} ({decision.attack})"
    recovered = "-" if decision.recovered is None else share_words(decision.recovered)
    word = "released" if decision.released else "refused"
    return [decision.way, ", ".join(decision.exposes), str(len(decision.attacks)), excess, recovered, word]
