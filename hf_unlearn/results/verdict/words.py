"""Sentences that a reader of the figures needs: what the oracle is, how answers were made and judged."""

from collections.abc import Mapping
from typing import Any

from ..record import RunRecord

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
