"""What came of a run, in a sentence, by rules: the card and the report say it in the same words. It reads a record."""

from .figures import MODELS, side_by_side
from .membership import Membership, membership
from .rules import Level, Verdict, verdict, verdict_rules
from .words import named_oracle, oracle_words, settings_words

__all__ = [
    "MODELS",
    "Level",
    "Membership",
    "Verdict",
    "membership",
    "named_oracle",
    "oracle_words",
    "settings_words",
    "side_by_side",
    "verdict",
    "verdict_rules",
]
