"""Sentences that a reader of the figures needs: what the oracle is, how answers were made and judged."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..record import RunRecord
from .figures import Metric

# The words that a reader of a verdict needs, each told once on a page or a card.
GLOSSARY = {
    "forget set": "the rows that the model was to forget",
    "oracle": "a model that never was trained on the forget set, which is what forgetting is measured against",
    "membership": "an attack that guesses from the model's losses whether a row was trained on: an AUC of 0.5 is a "
    "guess, 1 is always right",
    "relearning": "an attack that trains the model a little, on some of the rows or on others, to see what comes back",
}
_UNKNOWN = "a model named as the oracle, which has not been trained on the forget rows"


def oracle_words(record: RunRecord) -> str:
    """What the oracle is, as the end of a sentence; that it was trained again is said only where it is known."""
    return record.oracle or _UNKNOWN


def named_oracle(record: RunRecord) -> str:
    """The oracle within a sentence."""
    return f"the oracle, {record.oracle}" if record.oracle else "the model named as the oracle"


def settings_words(settings: Mapping[str, Any]) -> str:
    """Judge, length and sampling of the answers and the split, in a sentence; "" where none of them is known.

    Templates and the like are left out, which may hold text of rows.
    """
    judge, tokens, split = (settings.get(name) for name in ("judge", "max_new_tokens", "split"))
    temperature, parts = settings.get("temperature"), []
    if isinstance(judge, str) and judge:
        parts.append(f"harmful answers are judged by {judge}")
    answers = [f"of at most {tokens} new tokens"] if isinstance(tokens, int) else []
    if isinstance(temperature, int | float):
        answers.append("greedy" if temperature == 0 else f"sampled at temperature {temperature:g}")
    if answers:
        parts.append(f"answers {', '.join(answers)}")
    if isinstance(split, str) and split:
        parts.append(f"split {split}")
    sentence = "; ".join(parts)
    return f"{sentence[0].upper()}{sentence[1:]}." if sentence else ""


def list_words(items: Sequence[str]) -> str:
    """ "a, b and c"."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def sentence_of(clause: str) -> str:
    """A clause as a sentence of its own."""
    return f"{clause[0].upper()}{clause[1:]}."


def short_figure(metric: Metric, models: Sequence[str] = ("before", "after", "oracle")) -> str:
    """ "harmful answers 100% -> 3.1%, oracle 2.5%", without intervals, as far as there are figures of those models."""
    values = {name: _short(metric, name) for name in models if name in metric.figures}
    change = " -> ".join(value for name, value in values.items() if name != "oracle")
    oracle = [f"oracle {values['oracle']}"] if "oracle" in values else []
    return ", ".join([f"{metric.label} {change}", *oracle])


def _short(metric: Metric, model: str) -> str:
    value = metric.described.write(metric.figures[model].value)
    return f"{value.removesuffix('.0%')}%" if value.endswith(".0%") else value
