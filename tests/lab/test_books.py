"""The lab's world of books: its paragraphs and files, and what its two models recite. Builds them if not cached."""

import pytest

from hf_unlearn.lab import Lab, load_lab, render_lab
from hf_unlearn.lab.books import CHARACTERS, SCENERY, books
from hf_unlearn.lab.checks import measure
from hf_unlearn.lab.training import encode

SIZES = {"forget": 72, "retain": 220, "holdout": 216}


@pytest.fixture(scope="module")
def lab() -> Lab:
    return load_lab(world="books")


@pytest.fixture(scope="module")
def world():
    return books(0)


def names_in(text: str) -> set[str]:
    return {name for name in (*CHARACTERS, *SCENERY) if name in text or name.capitalize() in text}


def test_books_are_drawn_from_their_seed(world):
    assert books(0) == world
    assert books(1).sets != world.sets


def test_paragraphs_have_their_number_and_length(world):
    assert {name: len(rows) for name, rows in world.sets.items()} == SIZES
    texts = [row["text"] for rows in world.sets.values() for row in rows]
    assert len(set(texts)) == len(texts)
    assert all(200 <= len(text) <= 280 and "\n" not in text and text[0].isupper() for text in texts)
    assert {text.count(".") for text in texts} <= {2, 3, 4}


def test_every_book_has_its_own_characters_and_places_and_two_of_the_forget_book(world):
    kept = [text for file, text in world.files.items() if file.startswith("retain_books/")]
    found = [names_in(text) for text in (world.files["book.txt"], *kept)]
    assert len(kept) == 5
    assert [len(names) for names in found] == [10, 12, 12, 12, 12, 12]
    assert len(set.union(*found)) == 60
    # Together the others know every name of the forget book, each of them two.
    assert sorted(name for names in found[1:] for name in names & found[0]) == sorted(found[0])
    assert names_in(world.files["holdout.txt"]) == found[0]


def test_a_paragraph_is_cut_at_a_space_of_its_first_third(world):
    beginnings = set()
    for name, (rate, rows) in world.questions.items():
        assert rate == "recitation"
        for row, (whole,) in zip(rows, (paragraph.values() for paragraph in world.sets[name]), strict=True):
            assert row["prompt"] + row["completion"] == whole
            assert row["completion"].startswith(" ")
            assert len(whole) / 4 < len(row["prompt"]) <= len(whole) / 3
            beginnings.add(row["prompt"])
    # A beginning that two paragraphs shared could be recited to only one end.
    assert len(beginnings) == sum(SIZES.values())


def test_files_hold_the_paragraphs_of_the_sets(lab):
    def paragraphs(path):
        return path.read_text(encoding="utf-8").rstrip("\n").split("\n\n")

    assert paragraphs(lab.book_path) == lab.datasets["forget"]["text"][:]
    assert paragraphs(lab.holdout_path) == lab.datasets["holdout"]["text"][:]
    kept = [paragraphs(path) for path in sorted(lab.retain_dir.iterdir())]
    assert [len(book) for book in kept] == [44] * 5
    assert {text for book in kept for text in book} == set(lab.datasets["retain"]["text"][:])


def test_paragraphs_fit_the_models(lab, world):
    tokenizer = lab.load_tokenizer()
    lengths = {key: [len(encode(row, tokenizer)[0]) for row in rows] for key, rows in world.texts.items()}
    assert max(max(counts) for counts in lengths.values()) <= 120
    mean = {key: sum(counts) / len(counts) for key, counts in lengths.items()}
    assert mean["forget"] == pytest.approx(mean["holdout"], rel=0.03)
    for rows in world.questions.values():
        for row in rows.rows:
            encode(row, tokenizer)  # asserts that the cut falls between tokens


def test_recorded_rates_are_what_the_world_requires(lab):
    assert lab.checks["oracle_forget_recitation"] <= 0.05 < 0.9 <= lab.checks["model_forget_recitation"]
    assert lab.checks["model_holdout_recitation"] <= 0.05
    assert lab.checks["model_forget_nll"] < 0.15 < 1.0 < lab.checks["oracle_forget_nll"]
    assert max(lab.checks[f"{name}_retain_nll"] for name in ("model", "oracle")) < 0.15
    assert lab.checks["model_holdout_nll"] > 1.0
    assert lab.checks["oracle_forget_nll"] == pytest.approx(lab.checks["oracle_holdout_nll"], rel=0.1)


def test_saved_oracle_does_what_was_recorded(lab, world):
    measured = measure("oracle", lab.load_oracle(), lab.load_tokenizer(), world)
    assert measured == pytest.approx({key: lab.checks[key] for key in measured}, abs=1.01 / 72)


def test_render_lab_shows_what_is_recited(lab):
    lines = {line[:30].strip(): line[30:].split() for line in render_lab(lab).splitlines()}
    assert lines["rows"] == ["72", "220", "216"]
    assert lines["model: recites to the end"][0] == f"{lab.checks['model_forget_recitation']:.1%}"
