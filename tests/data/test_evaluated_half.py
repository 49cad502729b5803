"""The two halves of the rows that a model is measured on: whole together, and not those of the holdout."""

import datasets
import pytest

from fixtures.examples import assert_four_parts
from hf_unlearn.data.holdout_split import HALVES, calibration_rows, evaluated_half

ROWS = [{"prompt": f"who is {i}?", "completion": f" fox {i}"} for i in range(200)]


def prompts(rows):
    return {row["prompt"] for row in rows}


def test_every_row_is_in_one_half_whatever_else_is_there():
    rows = datasets.Dataset.from_list(ROWS)
    calibration, reporting = (prompts(evaluated_half(rows, half)) for half in HALVES)
    assert calibration | reporting == prompts(ROWS) and not calibration & reporting
    assert 70 < len(calibration) < 130
    fewer = evaluated_half(datasets.Dataset.from_list(ROWS[50:]), HALVES[0])
    assert prompts(fewer) == calibration & prompts(ROWS[50:])
    assert evaluated_half(rows, None) is rows


def test_a_question_is_in_the_half_of_the_same_row_under_other_names():
    questions = datasets.Dataset.from_list([{"question": r["prompt"], "answer": r["completion"]} for r in ROWS])
    reporting = evaluated_half(questions, "reporting")["question"]
    assert set(reporting) == prompts(evaluated_half(datasets.Dataset.from_list(ROWS), "reporting"))


def test_the_half_says_nothing_about_the_half_of_the_holdout():
    rows = datasets.Dataset.from_list(ROWS)
    chosen, fitted = prompts(evaluated_half(rows, "calibration")), prompts(calibration_rows(rows))
    assert all(20 < count < 80 for count in (len(chosen & fitted), len(chosen - fitted), len(fitted - chosen)))


def test_rows_too_few_for_a_half_are_refused():
    rows = datasets.Dataset.from_list(ROWS[:1])
    (empty,) = [half for half in HALVES if not prompts(rows) <= prompts_or_none(rows, half)]
    with pytest.raises(ValueError) as error:
        evaluated_half(rows, empty)
    assert_four_parts(str(error.value), "a half of them")


def prompts_or_none(rows, half):
    try:
        return prompts(evaluated_half(rows, half))
    except ValueError:
        return set()
