"""The verdict on a run by fixed rules, from its record: answers to three questions, a level and a sentence."""

from .answers import Answer, Word
from .figures import MODELS, metric_of, side_by_side
from .membership import Membership, membership
from .never_seen import NeverSeen, never_seen
from .rules import Level, Verdict, verdict, verdict_rules
from .words import GLOSSARY, named_oracle, oracle_words, settings_words, short_figure

__all__ = [
    "GLOSSARY",
    "MODELS",
    "Answer",
    "Level",
    "Membership",
    "NeverSeen",
    "Verdict",
    "Word",
    "membership",
    "metric_of",
    "named_oracle",
    "never_seen",
    "oracle_words",
    "settings_words",
    "short_figure",
    "side_by_side",
    "verdict",
    "verdict_rules",
]
