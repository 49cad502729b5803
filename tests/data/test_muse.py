"""MUSE's sets from files, memory and the Hub: which rows become what, as tokens too, and what is refused."""

import json
from pathlib import Path
from typing import Any

import datasets
import pytest
from datasets import Dataset

from fixtures.muse_rows import ROWS, mapping
from fixtures.tokenizer import BOS, EOS, make_tokenizer
from hf_unlearn.data.muse import load_muse, training_sets
from hf_unlearn.data.muse_tokens import continuation_rows, excerpt_rows, published_rows, question_rows

PARTS = r"Expected (.|\n)*Got: (.|\n)*Why it matters: (.|\n)*What to do: "


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The three layouts side by side: arrays of rows and of strings, JSON Lines, and the Hub's parquet."""
    for name, rows in ROWS.items():
        path = tmp_path / f"{name}.json"
        path.parent.mkdir(exist_ok=True)
        kind = name.partition("/")[0]
        if kind == "privleak":
            path.write_text(json.dumps([row["text"] for row in rows], indent=1), encoding="utf-8")
        elif kind == "knowmem":
            path.write_text(json.dumps(rows), encoding="utf-8")
        else:
            Dataset.from_list(rows).to_parquet(f"{path.with_suffix('')}-00000-of-00001.parquet")
    return tmp_path


def test_a_folder_and_a_mapping_give_the_same_sets(folder):
    stored, given = load_muse(str(folder), part="scal_2"), load_muse(mapping(), part="scal_2")
    for name in ("verbatim", "forget_qa", "retain_examples", "forget", "retain", "holdout", "request"):
        assert getattr(stored, name).to_list() == getattr(given, name).to_list(), name
    assert (
        given.verbatim.to_list() == ROWS["verbmem/forget"] and given.retain_qa.to_list() == ROWS["knowmem/retain_qa"]
    )
    assert given.holdout["text"][:] == [row["text"] for row in ROWS["privleak/holdout"]]
    assert given.request is not None and given.request.to_list() == ROWS["scal/forget_2"]
    assert load_muse(mapping()).request is None


def test_splits_have_their_former_names_too():
    rows = mapping(knowmem__retain_qa=None, privleak__retain=None)
    rows |= {"knowmem/retain2_qa": Dataset.from_list(ROWS["knowmem/retain_qa"][:2])}
    rows |= {"privleak/retain2": Dataset.from_list(ROWS["privleak/retain"][:3])}
    data = load_muse(rows)
    assert (len(data.retain_qa), len(data.retain)) == (2, 3)


def test_a_limit_leaves_the_examples_whole():
    data = load_muse(mapping(), limit=1)
    assert [len(rows) for rows in (data.verbatim, data.forget_qa, data.holdout)] == [1, 1, 1]
    assert len(data.forget_examples) == len(data.retain_examples) == 2
    with pytest.raises(ValueError, match="limit must be a whole number"):
        load_muse(mapping(), limit=0)


def test_training_sets_are_texts_of_the_part(folder):
    for part, name in (("forget", "raw/forget"), ("scal_2", "scal/forget_2"), ("sust_3", "sust/forget_3")):
        sets = training_sets(folder, part=part)
        assert sets["forget"].to_list() == ROWS[name] and sets["retain"].to_list() == ROWS["raw/retain1"]


def test_the_hub_is_asked_for_each_split(monkeypatch):
    asked = []

    def load_dataset(hub_id: str, name: str, **options: Any) -> Dataset:
        asked.append((hub_id, name, options["split"], options["revision"]))
        return Dataset.from_list(ROWS[f"{name}/{options['split']}"])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    load_muse(corpus="books", revision="abc")
    assert {each[0] for each in asked} == {"muse-bench/MUSE-Books"} and {each[3] for each in asked} == {"abc"}
    assert [f"{name}/{split}" for _, name, split, _ in asked] == list(ROWS)[:8]
    training_sets(part="sust_3")
    assert asked[8:] == [
        ("muse-bench/MUSE-News", "sust", "forget_3", None),
        ("muse-bench/MUSE-News", "raw", "retain1", None),
    ]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"privleak__holdout": None}, "'privleak/holdout'"),
        ({"verbmem__forget": [{"prompt": "a", "text": "b"}]}, "'gt' in 'verbmem/forget'"),
        ({"knowmem__forget_qa": [{"question": "who?", "answer": " "}]}, "row 0 with an empty"),
        ({"privleak__forget": []}, "column 'text'"),
    ],
)
def test_missing_sets_and_wrong_columns_are_refused_in_four_parts(changed, words):
    with pytest.raises(ValueError, match=PARTS) as error:
        load_muse(mapping(**changed))
    assert words in str(error.value)


def test_a_missing_file_is_named(folder):
    (folder / "knowmem" / "retain_qa_icl.json").unlink()
    with pytest.raises(ValueError, match=PARTS + "download the dataset's repository whole") as error:
        load_muse(folder)
    assert "without knowmem/retain_qa_icl.json" in str(error.value)


# --- Tokens: a letter each but for merges, 5 + the byte's place ---


def letters(tokenizer: Any, ids: list[int]) -> list[str]:
    return [tokenizer.decode([token]) for token in ids]


def test_excerpts_have_no_end_and_no_target_first():
    tokenizer = make_tokenizer()
    (row,) = excerpt_rows(tokenizer, ["ab"])
    assert row["input_ids"][0] == BOS and EOS not in row["input_ids"]
    assert row["labels"] == [-100, *row["input_ids"][1:]] and letters(tokenizer, row["labels"][1:]) == ["a", "b"]


def test_a_continuation_follows_a_space_and_is_cut():
    tokenizer = make_tokenizer()
    rows = continuation_rows(tokenizer, ["ab", "ab ", "ab"], ["cde", "cde", "\ncde"], 3)
    answers = ["".join(letters(tokenizer, [token for token in row["labels"] if token != -100])) for row in rows]
    assert answers == [" cd", "cde", "\ncd"]
    assert rows[0]["input_ids"][:3] == tokenizer("ab")["input_ids"]


def test_a_prompt_keeps_its_tokens_where_its_last_word_would_merge():
    tokenizer = make_tokenizer((("b", "Ġ"),))  # "b " is one token of the whole text
    (row,) = continuation_rows(tokenizer, ["ab"], ["c"], 9)
    assert row["input_ids"] == [*tokenizer("ab")["input_ids"], *tokenizer(" c", add_special_tokens=False)["input_ids"]]


def test_questions_stand_behind_the_examples_and_the_space_with_the_answer():
    tokenizer = make_tokenizer((("Ġ", "m"),))
    data = load_muse(mapping(), limit=1)
    (row,) = question_rows(tokenizer, data.forget_qa, data.forget_examples)
    prompt = [token for token, label in zip(row["input_ids"], row["labels"], strict=True) if label == -100]
    shown = "Question: cat 0?\nAnswer: mill 0\n\nQuestion: cat 1?\nAnswer: mill 7 rye\n\n"
    assert prompt == tokenizer(f"{shown}Question: fox 0?\nAnswer:")["input_ids"]
    assert letters(tokenizer, row["labels"][len(prompt) :])[0] == " m"  # the token that texts have there


def test_published_rows_count_the_beginning_of_text():
    tokenizer = make_tokenizer()
    (row,) = published_rows(tokenizer, ["ab "], ["cdef"], 3)
    assert row["input_ids"] == [*tokenizer("ab ")["input_ids"], *tokenizer("cd")["input_ids"]]
    assert row["labels"][4] == BOS


def test_long_texts_are_cut_into_passages_and_no_word_is_lost():
    novel = " ".join(f"The hen {k} sat down." for k in range(30))
    sets = mapping(raw__forget=[{"text": novel}, {"text": "a short\ntext"}])
    rows = training_sets(sets, "books", passage_characters=100)
    passages = rows["forget"]["text"][:]
    assert passages[-1] == "a short\ntext" and " ".join(passages[:-1]).split() == novel.split()
    assert len(passages) > 4 and max(map(len, passages)) <= 150
    assert rows["retain"].to_list() == ROWS["raw/retain1"]
