"""The preset for questions and answers: sets by any columns, in memory or named, measured as `custom` does."""

import json
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from fixtures.models import FORGET, HOLDOUT, RETAIN, tiny_model, tiny_tokenizer
from hf_unlearn.evaluation import custom, evaluate, unlearn_qa

PARTS = r"Expected (.|\n)*Got: (.|\n)*Why it matters: (.|\n)*What to do: "
PAIR = ("prompt", "completion")


def plain(rows: list[dict[str, str]], count: int) -> list[dict[str, str]]:
    return [{name: row[name] for name in PAIR} for row in rows[:count]]


SETS = {
    "forget": plain(FORGET, 4),
    "retain": plain(RETAIN, 4),
    "in_scope": plain(FORGET[4:], 3),
    "out_of_scope": plain(RETAIN[4:], 3),
    "holdout": plain(HOLDOUT, 4),
}


def under(names: tuple[str, str], rows: list[dict[str, str]]) -> list[dict[str, str]]:
    return [dict(zip(names, (row["prompt"], row["completion"]), strict=True)) for row in rows]


def columns(names: tuple[str, str]) -> dict[str, str]:
    return dict(zip(names, PAIR, strict=True))


def written(folder: Path, name: str, rows: list[dict[str, str]]) -> str:
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(folder / f"{name}.jsonl")


def test_it_measures_what_custom_measures(tmp_path):
    theirs, others = ("question", "answer"), ("asked", "said")
    sets: dict[str, Any] = {
        "forget": under(theirs, SETS["forget"]),
        "retain": Dataset.from_list(under(others, SETS["retain"])),
        "in_scope": {"source": written(tmp_path, "in_scope", under(theirs, SETS["in_scope"])), "limit": 3},
        "neighbours": written(tmp_path, "neighbours", under(others, SETS["out_of_scope"])),
        "holdout": SETS["holdout"],
    }
    by_set = {"forget": columns(theirs), "retain": columns(others), "in_scope": columns(theirs)}
    suite = unlearn_qa(**sets, columns=by_set | {"neighbours": columns(others)}, max_new_tokens=4)
    model, tokenizer = tiny_model(), tiny_tokenizer()
    result = evaluate(model, tokenizer, suite)
    expected = evaluate(model, tokenizer, custom(**SETS, max_new_tokens=4))
    assert result.values() == pytest.approx(expected.values(), nan_ok=True) and result.rows == expected.rows
    assert result.suite == "unlearn_qa" and result.pair == ("forget_rouge", "retain_rouge")
    assert {*result.headline} - {"answer_perplexity", "min_k_privleak"} <= result.metrics.keys()


def test_columns_may_be_the_same_for_all_sets(tmp_path):
    theirs = ("question", "answer")
    sets = {name: written(tmp_path, name, under(theirs, SETS[name])) for name in ("forget", "retain")}
    suite = unlearn_qa(forget=sets["forget"], retain=sets["retain"], columns=columns(theirs))
    assert {name: list(rows) for name, rows in suite.sets.items()} == {name: SETS[name] for name in sets}


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"columns": {"forget": {"query": "prompt"}}}, "a column 'query' in 'forget'"),
        ({"columns": {"forgot": {"query": "prompt"}}}, "did you mean 'forget'"),
        ({"neighbours": SETS["out_of_scope"], "out_of_scope": SETS["out_of_scope"]}, "two names of one set"),
        ({"retain": None}, "no retain set"),
        ({"forget": {"train": SETS["forget"]}}, "which holds sets"),
        ({"forgotten": SETS["forget"]}, "arguments that the unlearn_qa suite has"),
        ({"forget": [{"query": "who?", "reply": "I"}]}, "`prompt` and `completion`"),
    ],
)
def test_what_is_refused(changed, words):
    with pytest.raises(ValueError, match=PARTS) as error:
        unlearn_qa(**{"forget": SETS["forget"], "retain": SETS["retain"]} | changed)
    assert words in str(error.value)


def test_a_renaming_of_other_things_is_refused():
    with pytest.raises(ValueError, match="columns must be a mapping of names to names"):
        unlearn_qa(forget=SETS["forget"], retain=SETS["retain"], columns={"question": 1})
