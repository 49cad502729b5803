"""TOFU's sets from small files and mappings made here: which rows become what, and what is refused."""

import json
from pathlib import Path
from typing import Any

import datasets
import pytest
from datasets import Dataset

from hf_unlearn.data import tofu
from hf_unlearn.data.tofu import load_tofu, training_sets

ASKED = ("forget10_perturbed", "retain_perturbed", "real_authors_perturbed", "world_facts_perturbed")
COLUMNS = ["question", "answer", "paraphrased_answer", "perturbed_answer"]


def rows_of(name: str, count: int = 3) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [{"question": f"{name} {i}?", "answer": f"{name} answer {i}"} for i in range(count)]
    if name.endswith("perturbed"):
        for i, row in enumerate(rows):
            row["perturbed_answer"] = [f"wrong {k}" for k in range(3 + i % 2)]
    if name in ASKED[:2]:
        for row in rows:
            row |= {"paraphrased_answer": f"so, {row['answer']}", "paraphrased_question": "again?"}
    return rows


def write(folder: Path, name: str, rows: list[dict[str, Any]]) -> None:
    (folder / f"{name}.json").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in (*ASKED, "forget10", "retain90", "holdout10"):
        write(tmp_path, name, rows_of(name))
    return tmp_path


def mapping(**changed: list[dict[str, Any]]) -> dict[str, Dataset]:
    rows = {name: rows_of(name) for name in (*ASKED, "forget10", "retain90")} | changed
    return {name: Dataset.from_list(each) for name, each in rows.items()}


def test_a_folder_gives_every_set_with_its_columns(folder: Path) -> None:
    data = load_tofu(folder)
    for part, name in zip(("forget", "retain", "real_authors", "world_facts"), ASKED, strict=True):
        rows = getattr(data, part)
        assert rows.column_names == COLUMNS
        assert rows["question"][:] == [f"{name} {i}?" for i in range(3)]
        assert [len(wrong) for wrong in rows["perturbed_answer"]] == [3, 4, 3]
    assert data.forget["paraphrased_answer"][0] == "so, forget10_perturbed answer 0"
    assert data.world_facts["paraphrased_answer"][:] == data.world_facts["answer"][:]
    assert data.holdout is not None and data.holdout.to_list() == rows_of("holdout10")


def test_a_mapping_gives_the_same_sets(folder: Path) -> None:
    stored, given = load_tofu(str(folder)), load_tofu(mapping(holdout=rows_of("holdout10")))
    for part in ("forget", "retain", "real_authors", "world_facts", "holdout"):
        assert getattr(given, part).to_list() == getattr(stored, part).to_list()
    assert load_tofu(mapping()).holdout is None


def test_a_holdout_may_be_given_and_is_not_needed(folder: Path) -> None:
    given = Dataset.from_list([{"question": "who?", "answer": "nobody", "more": 1}])
    for holdout in (given, folder / "forget10.json"):
        found = load_tofu(folder, holdout=holdout).holdout
        assert found is not None and found.column_names == ["question", "answer"]
        assert found["answer"][0] in ("nobody", "forget10 answer 0")
    (folder / "holdout10.json").unlink()
    assert load_tofu(folder).holdout is None


def test_questions_in_other_words_are_loaded_when_asked_for(folder: Path) -> None:
    data = load_tofu(folder, limit=2, reworded=True)
    assert data.reworded is not None
    assert data.reworded.to_list() == [{"question": "again?", "answer": f"{ASKED[0]} answer {i}"} for i in range(2)]
    plain = [{name: row[name] for name in COLUMNS} for row in rows_of(ASKED[0])]
    with pytest.raises(ValueError, match="a column 'paraphrased_question' in 'forget10_perturbed'"):
        load_tofu(mapping(forget10_perturbed=plain), reworded=True)


def test_a_limit_takes_the_first_rows_of_each_set(folder: Path) -> None:
    data = load_tofu(folder, limit=2)
    assert [len(getattr(data, p)) for p in ("forget", "retain", "real_authors", "world_facts")] == [2] * 4
    assert data.holdout is not None and data.holdout.to_list() == rows_of("holdout10")[:2]
    assert load_tofu(mapping(), limit=1).holdout is None
    with pytest.raises(ValueError, match="limit must be a whole number"):
        load_tofu(folder, limit=0)


@pytest.mark.parametrize(
    ("split", "kept"), [("forget01", "retain99"), ("forget05", "retain95"), ("forget10", "retain90")]
)
def test_training_sets_are_prompts_and_completions(tmp_path: Path, split: str, kept: str) -> None:
    write(tmp_path, split, rows_of(split))
    write(tmp_path, kept, rows_of(kept, 5))
    sets = training_sets(tmp_path, split)
    assert list(sets) == ["forget", "retain"]
    assert sets["forget"].to_list()[1] == {"prompt": f"{split} 1?", "completion": f"{split} answer 1"}
    assert len(sets["retain"]) == 5 and sets["retain"]["prompt"][0] == f"{kept} 0?"


def test_the_hub_is_asked_for_each_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load_dataset(hub_id: str, name: str, **options: Any) -> Dataset:
        asked.append((hub_id, name, options["split"], options["revision"]))
        return Dataset.from_list(rows_of(name))

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    data = load_tofu(revision="abc")
    assert asked == [("locuslab/TOFU", name, "train", "abc") for name in ASKED]
    assert data.holdout is None and len(data.retain) == 3
    training_sets(split="forget10")
    assert [name for _, name, *_ in asked[4:]] == ["forget10", "retain90"]


def test_an_unknown_split_names_the_nearest() -> None:
    for load in (load_tofu, training_sets):
        with pytest.raises(ValueError, match="did you mean 'forget10'"):
            load(mapping(), "forget11")


def test_a_missing_configuration_is_named(folder: Path) -> None:
    (folder / "retain_perturbed.json").unlink()
    with pytest.raises(ValueError, match=r"'retain_perturbed'.*\nGot: .* without retain_perturbed\.json"):
        load_tofu(folder)
    incomplete = mapping()
    del incomplete["world_facts_perturbed"]
    with pytest.raises(ValueError, match="configuration 'world_facts_perturbed'"):
        load_tofu(incomplete)
    with pytest.raises(ValueError, match="configuration 'forget05_perturbed'"):
        load_tofu(folder, "forget05")
    with pytest.raises(ValueError, match="where there is no file"):
        load_tofu(folder / "absent")


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("forget10_perturbed", "paraphrased_answer"),
        ("retain_perturbed", "perturbed_answer"),
        ("world_facts_perturbed", "answer"),
        ("holdout", "question"),
    ],
)
def test_a_missing_column_is_named_with_its_set(name: str, column: str) -> None:
    rows = [{key: value for key, value in row.items() if key != column} for row in rows_of(name)]
    with pytest.raises(ValueError, match=f"a column '{column}' in '{name}'"):
        load_tofu(mapping(**{name: rows}))


@pytest.mark.parametrize(
    ("column", "value"),
    [("perturbed_answer", []), ("perturbed_answer", ["a", " "]), ("answer", ""), ("question", None)],
)
def test_a_row_that_cannot_be_measured_is_named_without_its_text(column: str, value: Any) -> None:
    rows = rows_of("retain_perturbed")
    rows[1][column] = value
    with pytest.raises(ValueError, match=f"`{column}` of every row of 'retain_perturbed'.*\nGot: row 1") as error:
        load_tofu(mapping(retain_perturbed=rows))
    assert "answer 1" not in str(error.value)


def test_an_empty_set_is_refused() -> None:
    empty = mapping()
    empty["retain_perturbed"] = empty["retain_perturbed"].select([])
    with pytest.raises(ValueError, match="at least one row in 'retain_perturbed'"):
        load_tofu(empty)


def test_every_split_has_its_retain_set() -> None:
    for split, kept in tofu._RETAIN_SPLITS.items():
        assert int(split.removeprefix("forget")) + int(kept.removeprefix("retain")) == 100
