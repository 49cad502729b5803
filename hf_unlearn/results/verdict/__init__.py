"""The verdict on a run: a level and a sentence, by fixed rules, from its record."""

from .figures import MODELS, side_by_side
from .membership import Membership, membership
from .never_seen import NeverSeen, never_seen
from .rules import Level, Verdict, verdict, verdict_rules
from .words import named_oracle, oracle_words, settings_words

__all__ = [
    "MODELS",
    "Level",
    "Membership",
    "NeverSeen",
    "Verdict",
    "membership",
    "named_oracle",
    "never_seen",
    "oracle_words",
    "settings_words",
    "side_by_side",
    "verdict",
    "verdict_rules",
]
