"""A suite: the metrics of `custom`, and how often the answers to forget prompts echo the rows."""

from typing import Unpack

from hf_unlearn.evaluation import Evidence, RowArguments, Suite, SuiteOutput, row_suite

from .echo import echo_rate

HEADLINE = ("echo_rate", "forget_nll", "retain_accuracy")


def verses(**arguments: Unpack[RowArguments]) -> Suite:
    """How often a model still begins an answer as the verse goes, and what it kept."""
    return row_suite("verses", arguments, HEADLINE, ("echo_rate", "retain_accuracy"), more=_echoes)


def _echoes(evidence: Evidence) -> SuiteOutput:
    rows = evidence.answered["forget"]
    return SuiteOutput({"echo_rate": echo_rate(rows.answers, rows.expected)})
