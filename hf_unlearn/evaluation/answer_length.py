"""How long an answer may get: what a suite says, or as long as the longest answer that is expected."""

from dataclasses import replace
from typing import Any

from ..data.tokenized_row import answer_ids
from .suite import Suite

# Tokens of an answer whose length is taken from the rows: longer ones cost more than they tell.
LONGEST_ANSWER = 256


def with_length(suite: Suite, tokenizer: Any) -> tuple[Suite, int]:
    """The suite whole, with the length of its answers: where it has none, of the longest expected, end included."""
    suite = suite.with_tokenizer(tokenizer)
    if suite.max_new_tokens is not None:
        return suite, suite.max_new_tokens
    options = suite.row_options(tokenizer)
    rows = (row for name in suite.answered for row in options.tokenize(suite.sets[name], "eval"))
    longest = min(max((len(answer_ids(row)) for row in rows), default=1), LONGEST_ANSWER)
    return replace(suite, max_new_tokens=longest), longest
