"""KnowUnDo's sets in its own shape, made here: two lists in the only row of a split; what is missing is refused."""

import json
from typing import Any

import datasets
import pytest
from datasets import Dataset

from hf_unlearn.data.knowundo import load_knowundo

PARTS = r"Expected (.|\n)*Got: (.|\n)*Why it matters: (.|\n)*What to do: "
Rows = list[dict[str, str]]


def rows_of(name: str, count: int) -> Rows:
    return [{"labels": f"{name} answer {k}", "text": f"{name} {k}?"} for k in range(count)]


CONTENT: dict[str, dict[str, Rows]] = {
    "unlearn": {"train": rows_of("secret", 3), "val": rows_of("asked", 2)},
    "retention": {"train": rows_of("kept", 4), "val": rows_of("near", 1)},
}


def test_a_folder_a_mapping_and_the_hub_give_the_same_sets(tmp_path, monkeypatch):
    (tmp_path / "privacy").mkdir()
    (tmp_path / "privacy" / "unlearn.json").write_text(json.dumps([CONTENT["unlearn"]], indent=1), encoding="utf-8")
    (tmp_path / "privacy" / "retention.json").write_text(json.dumps(CONTENT["retention"]), encoding="utf-8")
    asked = []

    def load_dataset(hub_id: str, name: str, **options: Any) -> Dataset:
        asked.append((hub_id, name, options["split"]))
        return Dataset.from_list([CONTENT[options["split"]]])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    given = load_knowundo(CONTENT)
    for other in (load_knowundo(str(tmp_path)), load_knowundo(domain="copyright")):
        assert {name: rows.to_list() for name, rows in other.items()} == {
            n: rows.to_list() for n, rows in given.items()
        }
    assert asked == [("zjunlp/KnowUnDo", "copyright", split) for split in ("unlearn", "retention")]
    assert {name: len(rows) for name, rows in given.items()} == dict(forget=3, retain=4, in_scope=2, out_of_scope=1)
    assert given["forget"].to_list()[1] == {"prompt": "secret 1?", "completion": "secret answer 1"}
    assert given["out_of_scope"].to_list() == [{"prompt": "near 0?", "completion": "near answer 0"}]
    assert [len(rows) for rows in load_knowundo(CONTENT, limit=1).values()] == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"unlearn": CONTENT["unlearn"]}, "'retention'"),
        (CONTENT | {"unlearn": {"train": rows_of("secret", 3)}}, "'unlearn/val'"),
        (CONTENT | {"retention": {"train": [{"text": "a", "answer": "b"}], "val": rows_of("near", 1)}}, "'labels'"),
        (CONTENT | {"retention": {"train": [{"text": "a", "labels": ""}], "val": rows_of("near", 1)}}, "row 0"),
    ],
)
def test_what_is_missing_is_refused_in_four_parts(content, words):
    with pytest.raises(ValueError, match=PARTS) as error:
        load_knowundo(content)
    assert words in str(error.value)


def test_a_missing_file_and_an_unknown_domain_are_refused(tmp_path):
    with pytest.raises(ValueError, match=PARTS + "download") as error:
        load_knowundo(tmp_path)
    assert "without privacy/unlearn.json" in str(error.value)
    with pytest.raises(ValueError, match="did you mean 'privacy'"):
        load_knowundo(CONTENT, "private")
