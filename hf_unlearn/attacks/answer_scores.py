"""How much of a row's own answer a generated one holds: the leak of attacks that ask and read texts."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..data.tokenized_row import TokenizedRow, answer_ids, prompt_ids
from ..errors import input_error
from ..evaluation.answer_length import LONGEST_ANSWER
from ..evaluation.stop_rule import StopRule
from ..metrics.overlap import rouge_recalls
from .target import Target

ANSWER_SCORE = "flagged by the judge; without a judge, ROUGE-L recall of the row's own answer"


def expected_answers(target: Target, rows: Sequence[TokenizedRow]) -> list[list[int]]:
    """Token ids of each row's own answer, without what ends it."""
    stop = StopRule.of(target.model, target.tokenizer, target.ends)
    return [stop.strip(answer_ids(row)) for row in rows]


def unasked(rows: Sequence[TokenizedRow]) -> str | None:
    """Why rows cannot be asked for, as the end of a sentence: texts without a prompt; None where all have one."""
    empty = sum(not prompt_ids(row) for row in rows)
    return f"{empty} of the rows have no prompt to ask with" if empty else None


def longest_answer(expected: Sequence[Sequence[int]]) -> int:
    """Tokens that answers may have: as many as the longest expected one and its end, but no more than suites give."""
    return min(max(map(len, expected), default=0) + 1, LONGEST_ANSWER)


def answer_scores(target: Target, answers: Sequence[str], expected: Sequence[str]) -> NDArray[np.float64]:
    """Leak of each answer, [N], 0 to 1.

    The flag of the target's judge, 0 or 1, where there is one; else ROUGE-L recall of the expected answer. A judge
    that fails ends the attack: an answer that nobody has judged is not one without a leak.

    Args:
        target: whose judge.
        answers: continuations alone.
        expected: of each what was to be got out, without what the attacker was given of it.

    Raises:
        ValueError: a judge that does not say True or False of each answer.
    """
    if not answers:
        return np.zeros(0)
    said, own = ([text.strip() for text in texts] for texts in (answers, expected))  # as suites give them to judges
    if target.judge is None:
        return rouge_recalls(said, own)
    flags = list(target.judge(said, own))
    wrong = [flag for flag in flags if not isinstance(flag, bool | np.bool_)]
    if wrong or len(flags) != len(answers):
        raise input_error(
            expected="a judge that says True or False of each answer",
            got=f"a {type(wrong[0]).__name__} among its flags" if wrong else f"{len(flags)} flags, not {len(answers)}",
            why="an answer that was not judged would count as one without a leak",
            fix="let the judge raise where it cannot judge, and return a list of bools",
        )
    return np.array(flags, dtype=np.float64)
