"""WMDP's and MMLU's questions and the corpora from files, memory and the Hub, as tokens too, and what is refused."""

import json
from pathlib import Path
from typing import Any

import datasets
import pytest
from datasets import Dataset

from fixtures.models import tiny_tokenizer
from fixtures.tokenizer import CHAT_TEMPLATE, EOS
from fixtures.wmdp_rows import CORPORA, MMLU, ROWS
from hf_unlearn.data.wmdp import load_wmdp, stands_alone, training_sets
from hf_unlearn.data.wmdp_tokens import choice_prompts, letter_rows, open_questions, open_rows, published_letter_rows

PARTS = r"Expected (.|\n)*Got: (.|\n)*Why it matters: (.|\n)*What to do: "


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """As the Hub has it and as files of JSON, and the corpora as the published code reads them."""
    for name, rows in ROWS.items():
        (tmp_path / name).mkdir()
        if name == "wmdp-bio":
            Dataset.from_list(rows).to_parquet(tmp_path / name / "test-00000-of-00001.parquet")
        else:
            (tmp_path / name / "test.json").write_text(json.dumps(rows), encoding="utf-8")
    for name, rows in CORPORA.items():
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    (tmp_path / "all").mkdir()
    (tmp_path / "all" / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in MMLU), encoding="utf-8")
    return tmp_path


def test_a_folder_and_rows_in_memory_give_the_same_questions(folder):
    stored, given = load_wmdp(str(folder), folder), load_wmdp(ROWS, MMLU)
    by_file = load_wmdp(ROWS, folder / "all" / "test.jsonl")
    assert stored.forget.to_list() == given.forget.to_list() and len(given.forget) == 8
    assert stored.retain.to_list() == given.retain.to_list() == by_file.retain.to_list()
    assert given.forget["subject"][:] == ["bio"] * 4 + ["cyber"] * 3 + ["chem"]
    assert given.forget[4] == ROWS["wmdp-cyber"][0] | {"subject": "cyber"}


def test_domains_subjects_and_a_limit_of_each():
    data = load_wmdp(ROWS, MMLU, domains="cyber", subjects=["art"], limit=2)
    assert data.forget["subject"][:] == ["cyber"] * 2 and data.retain["subject"][:] == ["art"] * 2
    assert load_wmdp(ROWS, MMLU, limit=1).retain["subject"][:] == ["sea_life", "art"]


def test_the_hub_is_asked_for_its_published_ids(monkeypatch):
    asked = []

    def load_dataset(hub_id: str, name: str | None, **options: Any) -> Dataset:
        asked.append((hub_id, name, options["split"], options["revision"]))
        return Dataset.from_list(MMLU if hub_id == "cais/mmlu" else (ROWS | CORPORA)[name or "bio-forget-corpus"])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    load_wmdp(revision="abc", mmlu_revision="def")
    wanted = [("cais/wmdp", f"wmdp-{domain}", "test", "abc") for domain in ("bio", "cyber", "chem")]
    assert asked == [*wanted, ("cais/mmlu", "all", "test", "def")]
    asked.clear()
    sets = training_sets()
    assert [(hub_id, name) for hub_id, name, *_ in asked] == [
        ("cais/wmdp-bio-forget-corpus", None),
        ("cais/wmdp-corpora", "cyber-forget-corpus"),
        ("cais/wmdp-corpora", "bio-retain-corpus"),
        ("cais/wmdp-corpora", "cyber-retain-corpus"),
    ]
    assert {name: len(rows) for name, rows in sets.items()} == {"forget": 6, "retain": 6}


def test_training_sets_are_texts_of_the_corpora(folder):
    for source in (folder, CORPORA):
        sets = training_sets(source, "cyber")
        assert sets["forget"].to_list() == CORPORA["cyber-forget-corpus"]
        assert sets["retain"].to_list() == CORPORA["cyber-retain-corpus"]


@pytest.mark.parametrize(
    ("question", "choices", "alone"),
    [
        ("What is tea made of?", ["leaves", "bark", "salt", "rye"], True),
        ("Which of the following is tea?", ["leaves", "bark", "salt", "rye"], False),
        ("What is tea made of?", ["leaves", "bark", "A and B", "rye"], False),
        ("What is tea made of?", ["leaves", "bark", "salt", "None of the above"], False),
        ("Choose among the statements below.", ["leaves", "bark", "salt", "rye"], False),
        ("What does the following code print?", ["1", "2", "3", "4"], True),
    ],
)
def test_which_questions_stand_alone(question, choices, alone):
    assert stands_alone(question, choices) is alone


def changed(name: str, **columns: Any) -> dict[str, Any]:
    """WMDP's rows with the first row of a set changed."""
    return {"source": ROWS | {name: [ROWS[name][0] | columns, *ROWS[name][1:]]}}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"source": {"wmdp-bio": ROWS["wmdp-bio"]}}, "'wmdp-cyber'"),
        ({"source": ROWS | {"wmdp-bio": [{"question": "a", "options": [], "answer": 1}]}}, "'choices' in 'wmdp-bio'"),
        ({"source": ROWS | {"wmdp-bio": ["a"]}}, "rows of 'wmdp-bio', each a mapping"),
        ({"mmlu": ROWS["wmdp-bio"]}, "'subject' in 'mmlu'"),
        ({"mmlu": {"test": MMLU}}, "one split of a dataset"),
        (changed("wmdp-chem", answer=4), "row 0 with another value"),
        (changed("wmdp-chem", choices=["a", "b"]), "row 0 with 2 of them"),
        (changed("wmdp-chem", question=" "), "row 0 with an empty"),
        ({"domains": []}, "one or more domains"),
    ],
)
def test_missing_sets_and_wrong_columns_are_refused_in_four_parts(arguments, words):
    with pytest.raises(ValueError, match=PARTS) as error:
        load_wmdp(**{"source": ROWS, "mmlu": MMLU} | arguments)
    assert words in str(error.value)


@pytest.mark.parametrize("arguments", [{"domains": "biology"}, {"subjects": ["arts"]}, {"limit": 0}])
def test_unknown_names_are_refused(arguments):
    with pytest.raises(ValueError, match=r"did you mean|limit"):
        load_wmdp(ROWS, MMLU, **arguments)
    with pytest.raises(ValueError, match="did you mean"):
        training_sets(CORPORA, "chem")


def test_missing_files_are_named(folder):
    for missing, words in (
        ("wmdp-chem/test.json", "wmdp-chem/test.json"),
        ("all/test.jsonl", "all/test.json"),
    ):
        (folder / missing).unlink()
        with pytest.raises(ValueError, match=PARTS) as error:
            load_wmdp(folder if missing.startswith("wmdp") else ROWS, folder)
        assert f"without {words}" in str(error.value)


# --- Tokens: a letter each ---


def answers(tokenizer: Any, rows: list[dict[str, Any]]) -> list[str]:
    return [tokenizer.decode([token for token in row["labels"] if token != -100]) for row in rows]


def test_options_move_on_by_letters():
    rows = load_wmdp({"wmdp-bio": [{"question": "q?", "choices": list("wxyz"), "answer": 0}]}, MMLU, domains=["bio"])
    plain, moved = choice_prompts(rows.forget)[0], choice_prompts(rows.forget, 1)[0]
    assert plain.endswith("about biology.\n\nq?\nA. w\nB. x\nC. y\nD. z\nAnswer:")
    assert moved.endswith("q?\nA. z\nB. w\nC. x\nD. y\nAnswer:")


def test_letters_stand_behind_a_prompt_that_is_cut_from_the_left():
    tokenizer = tiny_tokenizer()
    prompt = choice_prompts(load_wmdp(ROWS, MMLU).forget)[0]
    rows = letter_rows(tokenizer, [prompt])
    assert answers(tokenizer, rows) == [" A", " B", " C", " D"]
    assert rows == published_letter_rows(tokenizer, [prompt])
    cut = letter_rows(tokenizer, [prompt], 20)[2]
    assert cut == {name: values[-20:] for name, values in rows[2].items()}


def test_the_harness_compares_the_end_of_text_of_a_tokenizer_that_adds_one(monkeypatch):
    tokenizer = tiny_tokenizer()
    plain = type(tokenizer).__call__

    def ending(self: Any, text: str, **settings: Any) -> Any:
        encoded = plain(self, text, **settings)
        return encoded if settings.get("add_special_tokens") is False else {"input_ids": [*encoded["input_ids"], EOS]}

    monkeypatch.setattr(type(tokenizer), "__call__", ending)
    published, ours = published_letter_rows(tokenizer, ["q? Answer:"]), letter_rows(tokenizer, ["q? Answer:"])
    assert all(row["labels"][-1] == EOS for row in published) and answers(tokenizer, ours) == [" A", " B", " C", " D"]


def test_open_questions_are_those_that_stand_alone():
    tokenizer, data = tiny_tokenizer(), load_wmdp(ROWS, MMLU)
    asked = open_questions(data.forget)
    assert len(asked) == 6 and [len(wrong) for wrong in asked["wrong"]] == [3] * 6
    assert asked[1] == {"question": "fern 1?", "answer": "yak 0", "wrong": ["emu 1", "cod 2", "elk 3"]}
    row = open_rows(tokenizer, asked)[0]
    assert (
        tokenizer.decode(row["input_ids"], skip_special_tokens=True)
        == f"Question: fern 0?\nAnswer: {asked[0]['answer']}"
    )
    assert answers(tokenizer, [row]) == [f" {asked[0]['answer']}"]


def test_a_chat_template_writes_turns_and_is_refused_where_there_is_none():
    tokenizer, asked = tiny_tokenizer(), open_questions(load_wmdp(ROWS, MMLU).forget)
    with pytest.raises(ValueError, match=PARTS):
        open_rows(tokenizer, asked, chat_template=True)
    tokenizer.chat_template = CHAT_TEMPLATE
    row = open_rows(tokenizer, asked, chat_template=True)[0]
    prompt = [token for token, label in zip(row["input_ids"], row["labels"], strict=True) if label == -100]
    assert "fern 0?" in tokenizer.decode(prompt) and asked[0]["answer"] in answers(tokenizer, [row])[0]
