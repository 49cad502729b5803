"""The suite of protected text: how much of a book a model still recites when it is given the start of a passage."""

from collections.abc import Sequence
from typing import Any

from .. import metrics
from .components import CHEAP_ATTACKS
from .custom import row_suite
from .evidence import AnsweredRows, Evidence
from .result import EvaluationResult
from .suite import Measured, Suite

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


def copyright(
    *,
    forget: Any,
    retain: Any,
    in_scope: Any = None,
    out_of_scope: Any = None,
    holdout: Any = None,
    oracle: EvaluationResult | str | None = None,
    before: EvaluationResult | str | None = None,
    attacks: Sequence[str] = CHEAP_ATTACKS,
    max_new_tokens: int = 128,
    max_length: int | None = None,
    template: str | None = None,
) -> Suite:
    """How close a model's continuations come to the protected text.

    The metrics of `custom`, and of the answers to forget prompts: `common_substring`, the longest common substring as
    a share of the protected continuation; `recited_rate`, the share of answers where it is at least half; `bleu`
    (sacrebleu, 0 to 1). Rows are passages: a prompt of the passage's first characters and a completion of its rest
    (`hf_unlearn.data.books.book_rows`).

    Args:
        forget: passages of the protected book.
        retain: passages of other books.
        in_scope, out_of_scope, holdout, oracle, before, attacks, max_new_tokens, max_length, template: as in `custom`.

    Raises:
        ValueError: as `custom` does.
    """
    sets = {
        "forget": forget,
        "retain": retain,
        "in_scope": in_scope,
        "out_of_scope": out_of_scope,
        "holdout": holdout,
    }
    options = dict(max_new_tokens=max_new_tokens, max_length=max_length, template=template)
    return row_suite("copyright", sets, HEADLINE, attacks, oracle, before, options, {}, _similarity)


def _similarity(evidence: Evidence) -> Measured:
    rows: AnsweredRows = evidence.answered["forget"]
    shares = metrics.longest_common_substrings(rows.answers, rows.expected)
    return Measured(
        {
            "common_substring": metrics.mean(shares),
            "recited_rate": metrics.proportion(shares >= RECITED),
            "bleu": metrics.bleu(rows.answers, rows.expected),
        }
    )
