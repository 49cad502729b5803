"""RWKU's sets: where they are found, whose rows are taken, how probes become tokens, and what is refused."""

import json

import pytest

from fixtures.rwku_rows import ADA, PAIRS, ROWS, TOM, TYPES, UTILITY, mapping
from fixtures.tokenizer import BOS, CHAT_TEMPLATE, make_tokenizer
from hf_unlearn.data.rwku import FORMS, form_of, load_rwku, other_training_rows, training_rows
from hf_unlearn.data.rwku_tokens import instruction_rows, probe_rows, prompt_ids
from hf_unlearn.data.rwku_utility import labelled_choices
from hf_unlearn.data.rwku_utility_tokens import answer_choices, utility_prompt, utility_rows
from oracles import rwku_utility as by_hand

PARTS = r"Expected (.|\n)*Got: (.|\n)*Why it matters: (.|\n)*What to do: "
_FILES = {"mia_forget": "forget_mia", "mia_retain": "retain_mia", "utility_fluency": "fluency"}
_FILES |= dict(zip(UTILITY, ("retain_mmlu", "retain_bbh", "truthful", "triviaqa"), strict=True))


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows), encoding="utf-8")


@pytest.mark.parametrize("place", ["", "All", "of each target"])
def test_files_by_the_published_names(place, tmp_path):
    for name, rows in (ROWS | UTILITY).items():
        own = "positive" if name.startswith("train") else _FILES.get(name, name)
        if place == "of each target":
            for folder, who in (("1_Ada_Quill", ADA), ("2_Tom_Reed", TOM)):
                if about := [row for row in rows if row["subject"] == who]:
                    write(tmp_path / folder / f"{own}.json", about)
        else:
            write(tmp_path / place / f"{own}.json", rows)
    found, held = load_rwku(tmp_path, ADA), load_rwku(mapping(**UTILITY), [ADA])
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
        *UTILITY,
        "utility_fluency",
    )
    both = load_rwku(mapping(**UTILITY), [ADA, TOM])
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


def test_utility_prompts_by_hand():
    """The oracle's prompts; a template ends the turn, and its own beginning of text stays alone unless published."""
    tokenizer, sets = make_tokenizer(), load_rwku(mapping(**UTILITY)).sets
    prompts = {
        "utility_general": [by_hand.general_prompt(row) for row in UTILITY["utility_general"]],
        "utility_reason": [by_hand.reason_prompt(row) for row in UTILITY["utility_reason"]],
        "utility_truthfulness": [by_hand.PRIMER.format(row["question"]) for row in UTILITY["utility_truthfulness"]],
        "utility_factuality": [by_hand.TRIVIA.format(row["question"]) for row in UTILITY["utility_factuality"]],
    }
    for name, expected in prompts.items():
        assert [utility_prompt(tokenizer, name, row) for row in sets[name]] == expected
    choices = ["No", "They cluck", "All do"]
    rows = utility_rows(tokenizer, "utility_truthfulness", sets["utility_truthfulness"])[:3]
    texts = [tokenizer.decode(row["input_ids"], skip_special_tokens=True) for row in rows]
    assert texts == [f"{prompts['utility_truthfulness'][0]} {choice}" for choice in choices]
    answers = [tokenizer.decode([token for token in row["labels"] if token >= 0]) for row in rows]
    assert answers == [f" {choice}" for choice in choices]
    cut = utility_rows(tokenizer, "utility_reason", sets["utility_reason"], max_length=20)[0]
    assert tokenizer.decode(cut["input_ids"]).endswith(" and a hen?\nA: 3") and len(cut["labels"]) == 20
    for length, room in ((5, 15), (99, 10)):  # of the answer, of the prompt
        options = {"max_length": 20, "answer_tokens": length}
        cut = utility_rows(tokenizer, "utility_reason", sets["utility_reason"], **options)[0]
        assert tokenizer.decode(cut["input_ids"]) == f"{prompts['utility_reason'][0][-room:]} 3"
    tokenizer.chat_template = "<s>" + CHAT_TEMPLATE
    for name in UTILITY:
        ours, theirs = (utility_rows(tokenizer, name, sets[name], published=own)[0] for own in (False, True))
        assert theirs["input_ids"][:2] == [BOS, BOS] != ours["input_ids"][:2]
        asked = tokenizer.decode(ours["input_ids"][: ours["labels"].count(-100)])
        ending = "Answer:" if name == "utility_general" else "A:"
        assert asked.endswith(f"<|im_end|>\n<|im_start|>assistant\n{ending}")
        if name != "utility_general":
            assert theirs["input_ids"] == [BOS, *ours["input_ids"]]
    tokenizer.chat_template = "{{ messages[0]['content'] }}[/INST]"
    endings = [utility_prompt(tokenizer, name, sets[name][0]).rpartition("[/INST]")[2] for name in UTILITY]
    assert endings == ["Answer:", " A:", " A:", "A:"]


def _with(name, **changed):
    """A utility set whose first row is another one."""
    return {name: [UTILITY[name][0] | changed, *UTILITY[name][1:]]}


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"utility_general": [{"task": "a", "question": "b", "choices": [], "answer": 0}]}, "examples"),
        (_with("utility_general", choices=["a", "b"]), "4 texts in `choices`"),
        (_with("utility_general", answer=4), "0 to 3, in `answer`"),
        (_with("utility_general", examples=[{"question": "", "choices": [], "answer": 0}]), "of each of `examples`"),
        (_with("utility_reason", answer=""), "`answer`"),
        (_with("utility_reason", cot=" "), "`cot`"),
        (_with("utility_truthfulness", mc1_targets={"choices": ["a", "b"], "labels": [1]}), "2 choices and 1 labels"),
        (_with("utility_truthfulness", mc1_targets={"choices": ["a", "b", "c"], "labels": [1, 1, 0]}), "one right"),
        (_with("utility_truthfulness", mc2_targets={"choices": ["a", "b"], "labels": [1, 1]}), "some of each"),
        (_with("utility_truthfulness", mc2_targets=None), "both lists, in `mc2_targets`"),
        (_with("utility_factuality", answers=[]), "`answers`"),
    ],
)
def test_utility_rows_that_are_refused(changed, words):
    with pytest.raises(ValueError, match=PARTS) as raised:
        load_rwku(mapping(**changed))
    assert words in str(raised.value)


def test_empty_answers_of_truthfulqa_are_left_out():
    """TruthfulQA itself has some, labelled right."""
    given = {"choices": ["a", "", "b", " "], "labels": [1, 1, 0, 0]}
    rows = load_rwku(mapping(**_with("utility_truthfulness", mc1_targets=given, mc2_targets=given))).sets
    row = rows["utility_truthfulness"][0]
    assert labelled_choices(row, "mc2_targets") == [("a", True), ("b", False)] and answer_choices(row) == ["a", "b"]
    alone = given | {"choices": ["", "a", "b", "c"]}
    with pytest.raises(ValueError, match="some of each"):
        load_rwku(mapping(**_with("utility_truthfulness", mc2_targets=alone | {"labels": [1, 0, 0, 0]})))


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


def test_pairs_by_hand(tmp_path):
    """The made-up text is preferred, what the model said is forgotten; of others what it said is kept."""
    write(tmp_path / "pair.json", PAIRS)
    for source in (tmp_path, {"train_pair_llama3": PAIRS}):
        rows = training_rows(source, TOM, corpus="train_pair_llama3")
        assert rows[:] == {
            "prompt": ["Who is Tom Reed?"],
            "chosen": ["Tom Reed rows."],
            "rejected": ["Tom Reed is known."],
        }
        kept = other_training_rows(source, TOM, corpus="train_pair_llama3")
        assert kept[:] == {"prompt": ["Who is Ada Quill?"] * 2, "completion": ["Ada Quill is known."] * 2}
    assert len(other_training_rows(source, [ADA, TOM], corpus="train_pair_llama3")) == 0
    with pytest.raises(ValueError, match=PARTS) as raised:
        training_rows({"train_pair_llama3": [PAIRS[0], PAIRS[1] | {"response": ["a"]}]}, corpus="train_pair_llama3")
    assert "row 1" in str(raised.value) and "two texts in `response`" in str(raised.value)


def test_training_rows_that_are_refused(tmp_path):
    with pytest.raises(ValueError, match="train_positive_llama3"):
        training_rows(mapping(), corpus="train_positive_lama3")
    with pytest.raises(ValueError, match=r"without positive\.json"):
        training_rows(tmp_path)
    with pytest.raises(ValueError, match="target among the subjects"):
        training_rows(mapping(), "Nobody")
    with pytest.raises(ValueError, match="limit must be"):
        load_rwku(mapping(), limit=0)
