"""Rows of other people's columns on the command line: what the error advises works, and nothing is lost. No model."""

import json
import re

import pytest

from fixtures.examples import assert_four_parts
from hf_unlearn.data.row_cache import RowCache
from hf_unlearn.errors import input_error, nearest
from hf_unlearn.tasks.row_sets import RowSetArguments, load_sets

BENCHMARK = [{"id": str(i), "input": f"one {i}", "output": f"two {i}"} for i in range(3)]
ALPACA = [{"instruction": f"do {i}", "input": "" if i else "with this", "output": f"done {i}"} for i in range(3)]
SHAREGPT = [{"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": f"a {i}"}]} for i in range(3)]
SQUAD = [{"title": "t", "context": "c", "question": f"q {i}", "answer": f"a {i}"} for i in range(3)]
LAYOUTS = {
    "benchmark": (BENCHMARK, {"prompt": "one 0", "completion": "two 0"}),
    "alpaca": (ALPACA, {"prompt": "do 0\nwith this", "completion": "done 0"}),
    "sharegpt": (SHAREGPT, {"messages": SHAREGPT[0]["conversations"]}),
    "squad": (SQUAD, {"prompt": "c\nq 0", "completion": "a 0"}),
}


def sets_of(tmp_path, rows, **columns):
    """The sets of three files of the same rows."""
    files = {name: tmp_path / f"{name}.jsonl" for name in ("forget", "retain", "holdout")}
    for file in files.values():
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    named = {f"{name}_dataset": str(file) for name, file in files.items()}
    return load_sets(RowSetArguments(**named, **columns), "model", RowCache(tmp_path / "run" / "rows"))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_advice_for_other_columns_is_a_flag_that_works(tmp_path, layout):
    rows, expected = LAYOUTS[layout]
    given: dict[str, str] = {}
    for name in ("forget", "retain"):
        with pytest.raises(ValueError) as error:
            sets_of(tmp_path, rows, **given)
        advice = re.search(rf"pass --({name}_columns) '(\{{.*?\}})'", str(error.value))
        assert_four_parts(str(error.value), f"the {name} set")
        given[advice[1]] = advice[2]
    # Holdout rows have the forget rows' columns unless it is said otherwise.
    sets = sets_of(tmp_path, rows, **given)
    assert all(rows[0] == expected and len(rows) == 3 for rows in sets.values()) and len(sets) == 3
    named = sets_of(tmp_path, rows, **given, holdout_columns=given["forget_columns"])
    assert named["holdout"][0] == expected
    with pytest.raises(ValueError, match=r"(?s)the holdout set.*pass --holdout_columns"):
        sets_of(tmp_path, rows, **given, holdout_columns=json.dumps({next(iter(rows[0])): "unknown"}))


def test_a_question_ends_with_its_own_mark():
    fix = nearest("holdout_colums", [f"{name}_columns" for name in ("forget", "retain", "holdout")] + ["a"] * 60)
    assert fix.endswith("?") and str(input_error(expected="a", got="b", why="c", fix=fix)).endswith("?")
    assert str(input_error(expected="a", got="b", why="c", fix="do it")).endswith("do it.")
