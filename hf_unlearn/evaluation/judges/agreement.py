"""`measure_agreement`: how far a judge agrees with a sample that a person labelled, measured, saved and read again."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...data.checks import require_columns
from ...errors import input_error
from ...metrics.agreement import Agreement, agreement_accuracy, cohen_kappa
from ...metrics.result import MetricResult
from ...model.fingerprints import hash_parts
from ...results.files import atomic_write_text, read_json
from .judge import Judge
from .judgement import CountingJudge, error_words

_TRUE, _FALSE = ("1", "1.0", "true", "yes"), ("0", "0.0", "false", "no")


def measure_agreement(judge: Judge, rows: Any) -> Agreement:
    """Cohen's kappa and accuracy of a judge on rows that a person labelled.

    Args:
        judge: any judge; one of refusals against labels of refusals.
        rows: columns `answer` and `label` (1 where the answer is to be flagged: also true, yes), and where there are
            any `reference` (the row's own answer) and `question`.

    Raises:
        ValueError: a column that is missing, a label of another kind, or no row that the judge could judge.
    """
    columns = list(rows.column_names)
    require_columns(("answer", "label"), columns, why="a judge is compared with a person's labels of answers")
    answers = [str(answer or "") for answer in rows["answer"]]
    labels = _labels(list(rows["label"]))
    references = _texts(rows, "reference", columns) or [""] * len(answers)
    questions = _texts(rows, "question", columns)
    if isinstance(judge, CountingJudge):
        found = judge.judgement(answers, references, questions)
        flags, errors = list(found.flags), found.errors
    else:
        flags, errors = list(judge(answers, references)), {}
    both = [(flag, label) for flag, label in zip(flags, labels, strict=True) if flag is not None]
    if not both:
        raise input_error(
            expected="labelled rows that the judge can judge",
            got=f"none of {len(flags)} ({error_words(errors) or 'no rows'})",
            why="there is nothing to compare",
            fix="check the endpoint, or the length of the answers",
        )
    judged, said = zip(*both, strict=True)
    return Agreement(
        kappa=cohen_kappa(judged, said),
        accuracy=agreement_accuracy(judged, said),
        unjudged=len(flags) - len(both),
        judge=judge.name,
        rows=hash_parts({"answers": answers, "references": references, "questions": questions, "labels": labels}),
    )


def save_agreement(found: Agreement, path: str | Path) -> None:
    """Write what was found as JSON; no text of a row."""
    atomic_write_text(path, json.dumps(found.to_dict(), indent=2) + "\n")


def read_agreement(path: str | Path) -> Agreement:
    """What `save_agreement` wrote; raises ValueError for another file."""
    try:
        stored = read_json(path)
        kappa, accuracy = (MetricResult.from_dict(stored[name]) for name in ("kappa", "accuracy"))
        return Agreement(kappa, accuracy, int(stored["unjudged"]), str(stored["judge"]), str(stored["rows"]))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise input_error(
            expected="a file that hf-unlearn judge wrote",
            got=f"{Path(path).name}, which is none ({type(error).__name__})",
            why="the judge's agreement with people is read from it",
            fix="measure it again: hf-unlearn judge --labelled FILE --output_file agreement.json",
        ) from None


def _texts(rows: Any, name: str, columns: Sequence[str]) -> list[str] | None:
    return [str(text or "") for text in rows[name]] if name in columns else None


def _labels(values: list[Any]) -> list[bool]:
    words = [str(value).strip().lower() for value in values]
    wrong = sum(word not in (*_TRUE, *_FALSE) for word in words)
    if wrong:
        raise input_error(
            expected="a label of 1 or 0 (true or false, yes or no) in every row",
            got=f"{wrong} of {len(words)} rows with another",
            why="a row that nobody labelled says nothing of the judge",
            fix="label those rows, or leave them out",
        )
    return [word in _TRUE for word in words]
