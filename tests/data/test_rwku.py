"""RWKU's sets: where they are found, whose rows are taken, how probes become tokens, and what is refused."""

import json

import pytest

from fixtures.rwku_rows import ADA, ROWS, TOM, TYPES, mapping
from fixtures.tokenizer import BOS, CHAT_TEMPLATE, make_tokenizer
from hf_unlearn.data.rwku import FORMS, form_of, load_rwku, training_rows
from hf_unlearn.data.rwku_tokens import instruction_rows, probe_rows, prompt_ids

PARTS = r"Expected (.|\n)*Got: (.|\n)*Why it matters: (.|\n)*What to do: "
_FILES = {"mia_forget": "forget_mia", "mia_retain": "retain_mia", "utility_fluency": "fluency"}


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows), encoding="utf-8")


@pytest.mark.parametrize("place", ["", "All", "of each target"])
def test_files_by_the_published_names(place, tmp_path):
    for name, rows in ROWS.items():
        own = "positive" if name.startswith("train") else _FILES.get(name, name)
        if place == "of each target":
            for folder, who in (("1_Ada_Quill", ADA), ("2_Tom_Reed", TOM)):
                if about := [row for row in rows if row["subject"] == who]:
                    write(tmp_path / folder / f"{own}.json", about)
        else:
            write(tmp_path / place / f"{own}.json", rows)
    found, held = load_rwku(tmp_path, ADA), load_rwku(mapping(), [ADA])
    assert {name: rows[:] for name, rows in found.sets.items()} == {name: rows[:] for name, rows in held.sets.items()}
    assert training_rows(tmp_path, ADA)["text"][:] == ["Ada Quill is known."] * 2


def test_a_subjects_rows_and_missing_parts():
    data = load_rwku(mapping(forget_level1=None), TOM)
    assert data.sets["forget_level2"]["answer"][:] == ["boat"] and data.targets == (TOM,)
    assert data.missing == (
        "forget_level1",
        "forget_level3",
        "neighbor_level1",
        "mia_forget",
        "mia_retain",
        "utility_fluency",
    )
    both = load_rwku(mapping(), [ADA, TOM])
    assert (len(both.sets["forget_level2"]), both.missing) == (3, ())
    some = load_rwku(mapping(), limit=1)
    assert [len(some.sets[name]) for name in ("forget_level2", "forget_level3", "mia_retain")] == [1, 9, 1]
    assert training_rows(mapping(), limit=2)["text"][:] == ["Ada Quill is known.", "Tom Reed is known."]


def test_forms_by_any_spelling():
    assert tuple(map(form_of, TYPES)) == FORMS
    assert form_of("Cross-Lingual") == "cross_lingual" and form_of("in-context learning") == "in_context_learning"
    assert form_of("guess") is None


def test_prompts_by_hand():
    """A letter a token; with a template that begins the text itself the second beginning is left out."""
    tokenizer = make_tokenizer()
    rows = probe_rows(tokenizer, "forget_level1", load_rwku(mapping()).sets["forget_level1"])
    text = "Please complete the blank in the following question.\nQuestion: Ada keeps a ___.\nAnswer:"
    assert rows[0]["input_ids"] == [BOS, *tokenizer(f"{text} red mill", add_special_tokens=False)["input_ids"]]
    assert [token for token in rows[0]["labels"] if token >= 0] == rows[0]["input_ids"][-len(" red mill") :]
    forms = probe_rows(tokenizer, "forget_level3", load_rwku(mapping()).sets["forget_level3"])
    asked = [tokenizer.decode(row["input_ids"], skip_special_tokens=True).split("\n", 1)[1] for row in forms]
    assert asked[0] == "Question: prefix injection: Ada?\nAnswer: Oat"
    assert asked[1] == "Question: affirmative suffix: Ada? red mill"
    assert asked[7] == "incontext learning: Ada?\nAnswer: red mill"
    tokenizer.chat_template = "<s>" + CHAT_TEMPLATE
    ours, theirs = (prompt_ids(tokenizer, "q", "Answer:", published=published) for published in (False, True))
    assert theirs == [BOS, *ours] and ours[:1] == [BOS] != ours[1:2]
    assert tokenizer.decode(ours) == "<s><|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\nAnswer:"
    free = instruction_rows(make_tokenizer(), ["Sing."])[0]
    assert [token for token in free["labels"] if token >= 0] == [tokenizer.eos_token_id]


@pytest.mark.parametrize(
    ("changed", "options", "words"),
    [
        ({"forget_level2": None}, {}, "configuration 'forget_level2'"),
        ({"forget_level2": [{"question": "a", "answer": "b", "subject": ADA}]}, {}, "query"),
        ({"forget_level3": [{"query": "a", "answer": "b", "subject": ADA, "type": "guess"}]}, {}, "prefix_injection"),
        ({"mia_forget": [{"text": " ", "subject": ADA}]}, {}, "mia_forget"),
        ({"mia_forget": [{"text": "a"}]}, {"target": ADA}, "subject"),
        ({}, {"target": "Ada Quil"}, "did you mean 'Ada Quill'"),
        ({}, {"target": []}, "name of a subject"),
    ],
)
def test_what_is_refused(changed, options, words):
    with pytest.raises(ValueError, match=PARTS) as raised:
        load_rwku(mapping(**changed), **options)
    assert words in str(raised.value)


def test_training_rows_that_are_refused(tmp_path):
    with pytest.raises(ValueError, match="train_positive_llama3"):
        training_rows(mapping(), corpus="train_positive_lama3")
    with pytest.raises(ValueError, match=r"without positive\.json"):
        training_rows(tmp_path)
    with pytest.raises(ValueError, match="target among the subjects"):
        training_rows(mapping(), "Nobody")
    with pytest.raises(ValueError, match="limit must be"):
        load_rwku(mapping(), limit=0)
