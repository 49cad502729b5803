"""A verification as a table for people."""

from collections.abc import Mapping
from typing import Any

from ...results.attack_words import number_words
from ...results.terminal import terminal_table
from .verification import Verification, Verified

_COLUMNS = {
    "answers given": "forget_accuracy",
    "nll": "forget_nll",
    "unseen nll": "holdout_nll",
    "min-k AUC": "min_k_auc",
    "extraction": "forget_extraction_strength",
}


def verification_words(verified: Verification) -> str:
    """What is wrong with the ledger, a line for each request, then what stands against them and what is left open."""
    lines = [f"Wrong with the ledger: {problem}" for problem in verified.problems]
    if verified.open_again:
        lines.append(f"Open since an earlier verification, and not measured: {', '.join(verified.open_again)}.")
    if verified.erased:
        lines.append(f"Not measured, since their rows were erased: {', '.join(verified.erased)}.")
    if not verified.requests and verified.erased:
        return "\n".join(lines)
    if not verified.requests:
        return "\n".join([*lines, "No request is carried out."])
    table = terminal_table(["id", *_COLUMNS, "largest excess", "verdict"], [_row(one) for one in verified.requests])
    lines += [table, ""]
    for one in verified.requests:
        lines += [f"{one.request}: {why}." for why in one.why]
    for one in verified.requests:
        lines += [f"Note on {one.request}: {note}" for note in one.notes]
    back = [one.request for one in verified.requests if not one.holds]
    all_hold = "Every other request holds." if verified.open_again or verified.erased else "Every request holds."
    lines.append(f"Open again: {', '.join(back)}." if back else all_hold)
    return "\n".join(lines)


def _row(one: Verified) -> list[str]:
    cells = [_figure(one.figures.get(name)) for name in _COLUMNS.values()]
    attacks = [figure["value"] for name, figure in one.figures.items() if name.startswith("attack_")]
    numbers = [value for value in attacks if isinstance(value, int | float)]
    largest = number_words(max(numbers)) if numbers else "-"
    word = "holds" if one.holds else "does not hold"
    return [one.request, *cells, largest, f"{word} (verified before)" if one.earlier else word]


def _figure(figure: Mapping[str, Any] | None) -> str:
    if figure is None or not isinstance(figure["value"], int | float):
        return "-"
    interval = "" if figure["low"] is None else f" [{figure['low']:.2f}, {figure['high']:.2f}]"
    return f"{figure['value']:.2f}{interval}"
