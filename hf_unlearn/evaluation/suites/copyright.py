"""The suite of protected text: how much of a passage a model recites when it is given the start."""

from typing import Unpack

from ... import metrics
from ..evidence import AnsweredRows, Evidence
from ..suite import Suite, SuiteOutput
from .custom import RowArguments, row_suite

HEADLINE = (
    "forget_rouge",
    "common_substring",
    "recited_rate",
    "bleu",
    "forget_nll",
    "forget_extraction_strength",
    "retain_nll",
    "retain_rouge",
    "min_k_auc",
    "min_k_privleak",
    "answer_perplexity",
    "broken_rate",
)
# An answer that shares an unbroken run of this share of the protected text's characters recites it.
RECITED = 0.5


def copyright(**arguments: Unpack[RowArguments]) -> Suite:
    """How close a model's continuations come to the protected text.

    The metrics of `custom`, and of the answers to forget prompts: `common_substring`, the longest common substring as
    a share of the protected continuation; `recited_rate`, the share of answers where it is at least half; `bleu`
    (sacrebleu, 0 to 1). Rows are passages: a prompt of the passage's first characters and a completion of its rest
    (`hf_unlearn.data.books.book_rows`).

    Args:
        arguments: `forget`, passages of the protected book, `retain`, passages of other books, and what else
            `custom.RowArguments` has.

    Raises:
        ValueError: as `custom` does.
    """
    pair = ("recited_rate", "retain_rouge")
    return row_suite("copyright", arguments, HEADLINE, pair, more=_similarity)


def _similarity(evidence: Evidence) -> SuiteOutput:
    rows: AnsweredRows = evidence.answered["forget"]
    shares = metrics.longest_common_substrings(rows.answers, rows.expected)
    return SuiteOutput(
        {
            "common_substring": metrics.mean(shares),
            "recited_rate": metrics.proportion(shares >= RECITED),
            "bleu": metrics.bleu(rows.answers, rows.expected),
        }
    )
