"""Stand-ins for unseen rows: the form stays, names and numbers go, in every format and script. No model is run."""

import pytest
from datasets import Dataset

from hf_unlearn.data.perturbed_rows import perturbed_rows
from hf_unlearn.data.text_digests import text_digest

PEOPLE = [
    ("Ada Byron", "Turin", 1815),
    ("Omar Hadad", "Basra", 1902),
    ("Lena Ott", "Bonn", 1987),
    ("Ivo Pym", "Ely", 1750),
]
PLAIN = [
    {"prompt": f"Where was {name} born?", "completion": f" {name}'s town was {town}, in {year}. The end."}
    for name, town, year in PEOPLE
]


def stand_ins(rows: list[dict], **options) -> list[dict]:
    return perturbed_rows(Dataset.from_list(rows), **{"seed": 0, "count": 100} | options).to_list()


def test_names_and_numbers_are_exchanged_in_prompt_and_answer_alike():
    made = stand_ins(PLAIN)
    assert len(made) == 4 and made == stand_ins(PLAIN[::-1]) != stand_ins(PLAIN, seed=1)
    names = {part for name, _, _ in PEOPLE for part in name.split()}
    for row in made:
        asked = row["prompt"].removeprefix("Where was ").removesuffix(" born?")
        assert row["completion"].startswith(f" {asked}'s town was ") and row["completion"].endswith(". The end.")
        assert set(asked.split()) <= names and row not in PLAIN
        assert any(f" {town}, in" in row["completion"] for _, town, _ in PEOPLE)
        assert any(f"in {year}." in row["completion"] for _, _, year in PEOPLE)
    digests = {text_digest(row, b"s") for row in made}
    again = stand_ins(PLAIN, known=digests, salt=b"s")
    assert digests.isdisjoint(text_digest(row, b"s") for row in again)
    assert len(stand_ins(PLAIN, count=2)) == 2


def test_other_formats_keep_their_form():
    chats = [
        {"messages": [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row["completion"]}]}
        for row in PLAIN
    ]
    for made, plain in zip(stand_ins(chats), stand_ins(PLAIN), strict=True):
        assert [message["role"] for message in made["messages"]] == ["user", "assistant"]
        asked, told = (message["content"] for message in made["messages"])
        assert asked.startswith("Where was ") and plain["prompt"].startswith("Where was ")
        assert asked.removeprefix("Where was ").removesuffix(" born?") in told
    tofu = [{"question": row["prompt"], "answer": row["completion"], "note": "kept out"} for row in PLAIN]
    assert set(stand_ins(tofu)[0]) == {"question", "answer"}
    texts = [{"text": f"It is {hour} in {town}."} for hour, town in ((12, "Rome"), (34, "Oslo"), (56, "Bonn"))]
    made = [row["text"] for row in stand_ins(texts)]
    assert made and all(text.startswith("It is ") and {"text": text} not in texts for text in made)
    assert {text.split(" in ")[1] for text in made} <= {"Rome.", "Oslo.", "Bonn."}


@pytest.mark.parametrize(
    "rows",
    [
        [("张伟在哪里出生?", "他出生在上海。"), ("李娜在哪里出生?", "她出生在广州。")],
        [("أين ولد عمر؟", "ولد في البصرة."), ("أين ولدت ليلى؟", "ولدت في حلب.")],
        [("where was tom born?", "in a small town."), ("where was ann born?", "by the sea.")],
    ],
    ids=["Chinese", "Arabic", "small letters"],
)
def test_rows_without_capitals_get_another_rows_answer(rows):
    made = stand_ins([{"prompt": prompt, "completion": answer} for prompt, answer in rows])
    assert {(row["prompt"], row["completion"]) for row in made} == {
        (rows[0][0], rows[1][1]),
        (rows[1][0], rows[0][1]),
    }
    halves = stand_ins([{"text": prompt + answer} for prompt, answer in rows])
    assert halves and not {row["text"] for row in halves} & {prompt + answer for prompt, answer in rows}


def test_what_cannot_be_made_is_refused():
    with pytest.raises(ValueError, match="none came out otherwise"):
        stand_ins([{"prompt": "so?", "completion": "it is."}])
    with pytest.raises(ValueError, match="columns input_ids, labels"):
        stand_ins([{"input_ids": [1], "labels": [1]}])
