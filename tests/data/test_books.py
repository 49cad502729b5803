"""Passages of small books made here: nothing lost, whole sentences, words uncut, even shares."""

import re
from pathlib import Path

import pytest

from hf_unlearn.data.books import _pieces, book_rows, books_in, text_rows


def story(sentences: int, name: str = "Mara") -> str:
    """Sentences of unlike lengths in hard-wrapped paragraphs of four."""
    made = [
        f"{name} met Mr. Voss at gate {i}, and {'they walked on ' * (i % 5)}home."
        if i % 3
        else f'"{name} saw the sea {i} times!"'
        for i in range(sentences)
    ]
    paragraphs = [" ".join(made[start : start + 4]) for start in range(0, sentences, 4)]
    return "\n\n".join(re.sub(r"(.{30,45}) ", r"\1\n", paragraph) for paragraph in paragraphs)


def letters(text: str) -> str:
    return "".join(text.split())


def wholes(text: str, **arguments: int) -> list[str]:
    rows = book_rows(text, **arguments)
    return [prompt + completion for prompt, completion in zip(rows["prompt"], rows["completion"], strict=True)]


def test_a_passage_by_hand() -> None:
    text = "One two three. Four five six seven.\nEight nine!\n\nTen eleven. Twelve."
    rows = book_rows(text, prompt_characters=10, passage_characters=30)
    assert rows.to_list() == [
        {"prompt": "One two", "completion": " three. Four five six seven."},
        {"prompt": "Eight", "completion": " nine!\n\nTen eleven. Twelve."},
    ]
    assert text_rows(text, passage_characters=30)["text"][:] == [
        "One two three. Four five six seven.",
        "Eight nine!\n\nTen eleven. Twelve.",
    ]


@pytest.mark.parametrize("passage_characters", [60, 150, 600])
@pytest.mark.parametrize("sentences", [20, 41, 90])
def test_no_letter_of_a_book_is_lost_or_moved(sentences: int, passage_characters: int) -> None:
    text = story(sentences)
    passages = text_rows(text, passage_characters=passage_characters)["text"][:]
    assert len(passages) > 1
    assert letters("".join(passages)) == letters(text)
    assert wholes(text, prompt_characters=20, passage_characters=passage_characters) == passages
    lengths = [len(passage) for passage in passages]
    assert min(lengths) > passage_characters // 2
    assert max(lengths[:-1]) <= 1.5 * passage_characters
    assert lengths[-1] <= 2 * passage_characters + 2


def test_passages_are_whole_sentences_where_these_are_short() -> None:
    passages = text_rows(story(60), passage_characters=300)["text"][:]
    assert all(passage.endswith((".", '"')) and not passage.endswith("Mr.") for passage in passages)
    assert all("\n" not in passage.replace("\n\n", "") for passage in passages)
    assert any("\n\n" in passage for passage in passages)


def test_a_prompt_ends_with_a_word_and_the_answer_starts_with_its_space() -> None:
    text = story(60)
    rows = book_rows(text, prompt_characters=50, passage_characters=200)
    words = set(text.split())
    for prompt, completion in zip(rows["prompt"], rows["completion"], strict=True):
        assert completion[0].isspace() and not prompt[-1].isspace()
        assert 30 < len(prompt) <= 50
        assert prompt.split()[-1] in words and completion.split()[0] in words
    exact = book_rows("aaaa bbbb cccc dddd eeee", prompt_characters=9, passage_characters=24)
    assert exact[0] == {"prompt": "aaaa bbbb", "completion": " cccc dddd eeee"}


def test_long_sentences_and_scripts_without_spaces_are_cut() -> None:
    long = "word " * 500
    passages = text_rows(long, passage_characters=100)["text"][:]
    assert letters("".join(passages)) == letters(long)
    assert all(50 < len(passage) <= 150 and set(passage.split()) == {"word"} for passage in passages)
    unspaced = "海は青い。山は高い！" * 60
    rows = book_rows(unspaced, prompt_characters=20, passage_characters=100)
    assert "".join(p + c for p, c in zip(rows["prompt"], rows["completion"], strict=True)) == unspaced
    assert {len(prompt) for prompt in rows["prompt"]} == {20}
    assert all(completion[-1] in "。！" for completion in rows["completion"])


def test_a_file_and_its_text_give_the_same_rows(tmp_path: Path) -> None:
    path = tmp_path / "book.txt"
    path.write_bytes(b"\xef\xbb\xbf" + story(40).replace("\n", "\r\n").encode())
    expected = book_rows(story(40)).to_list()
    assert len(expected) > 1
    assert book_rows(path).to_list() == book_rows(str(path)).to_list() == expected


def test_a_limit_spreads_over_the_book() -> None:
    everything = wholes(story(200))
    limited = wholes(story(200), limit=3)
    assert limited == [everything[number * len(everything) // 3] for number in range(3)]
    assert wholes(story(200), limit=10_000) == everything


def shelf(folder: Path, **sizes: int) -> Path:
    for name, sentences in sizes.items():
        (folder / f"{name}.txt").write_text(story(sentences, name), encoding="utf-8")
    (folder / "notes.md").write_text("not a book")
    (folder / "more.txt").mkdir()
    return folder


def rows_of_each(rows: list[str], *names: str) -> list[int]:
    return [sum(name in row for row in rows) for name in names]


def test_a_folder_is_read_in_the_order_of_names(tmp_path: Path) -> None:
    shelf(tmp_path, Tove=80, Anna=40, Mara=120)
    rows = books_in(tmp_path)
    expected = [row for n, size in (("Anna", 40), ("Mara", 120), ("Tove", 80)) for row in book_rows(story(size, n))]
    assert rows.to_list() == expected
    assert books_in(str(tmp_path), prompt_characters=None).column_names == ["text"]


def test_a_limit_is_shared_evenly_and_short_books_give_what_they_have(tmp_path: Path) -> None:
    shelf(tmp_path, Anna=24, Mara=300, Tove=300)
    names, sizes = ("Anna", "Mara", "Tove"), {"passage_characters": 200, "prompt_characters": None}
    whole = rows_of_each(books_in(tmp_path, **sizes)["text"][:], *names)
    assert whole[0] < 10 < min(whole[1:])

    def shares(limit: int) -> list[int]:
        return rows_of_each(books_in(tmp_path, **sizes, limit=limit)["text"][:], *names)

    assert shares(3) == [1, 1, 1]
    assert sum(shares(5)) == 5 and max(shares(5)) - min(shares(5)) == 1
    assert shares(30)[0] == whole[0] and sum(shares(30)) == 30 and abs(shares(30)[1] - shares(30)[2]) <= 1
    assert shares(10_000) == whole


def test_what_is_no_book_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="where there is no file"):
        book_rows(tmp_path / "absent.txt")
    with pytest.raises(ValueError, match="where there is no file"):
        text_rows("absent.txt")
    with pytest.raises(ValueError, match="of 11 characters"):
        book_rows("Short text.")
    with pytest.raises(ValueError, match="of 0 characters"):
        book_rows(" \n\n ")
    latin = tmp_path / "latin.txt"
    latin.write_bytes("Señor ".encode("latin1") * 200)
    with pytest.raises(ValueError, match="UTF-8") as error:
        book_rows(latin)
    assert "Se" not in str(error.value) and error.value.__cause__ is None


def test_what_is_no_shelf_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="where there is no folder"):
        books_in(tmp_path / "absent")
    with pytest.raises(ValueError, match="without any"):
        books_in(tmp_path)
    shelf(tmp_path, Anna=40, Mara=40)
    with pytest.raises(ValueError, match="limit must be a whole number of at least 2"):
        books_in(tmp_path, limit=1)
    (tmp_path / "tiny.txt").write_text("Too short.")
    with pytest.raises(ValueError, match=r"tiny\.txt"):
        books_in(tmp_path)


def test_pieces_know_whether_a_space_stood_before_them() -> None:
    assert list(_pieces("Aa. Bb！Cc. " + "x" * 9 + " yy", 4)) == [
        ("\n\n", "Aa."), (" ", "Bb！"), ("", "Cc."), (" ", "xxxx"), ("", "xxxx"), ("", "x yy"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"limit": 0}, "limit must be a whole number of at least 1"),
        ({"prompt_characters": 0}, "prompt_characters must be from 1 to 300"),
        ({"prompt_characters": 301}, "passage_characters=602 or more"),
        ({"passage_characters": 1}, "passage_characters must be a whole number of at least 2"),
    ],
)
def test_lengths_that_do_not_fit_are_refused(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        book_rows(story(60), **arguments)
