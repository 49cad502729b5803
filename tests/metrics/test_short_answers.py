"""F1, exact match and conclusions of short answers: by hand, and against a loop that strikes words off."""

import random

import numpy as np
import pytest

from hf_unlearn.metrics import (
    answer_f1s,
    answer_matches,
    conclusion,
    conclusion_matches,
    joined_words,
    trivia_words,
)
from oracles import rwku_utility as by_hand


def test_f1_by_hand():
    """Two of four words of the answer are among the three of the nearest text: 2 * 2 / (4 + 3)."""
    found = answer_f1s(["the red mill on a hill"], [["barn", "red mill house"]])
    assert found.tolist() == pytest.approx([2 * 2 / (4 + 3)])
    assert answer_f1s(["hay hay", "", "oar"], [["hay"], ["hay"], ["hay"]]).tolist() == pytest.approx([2 / 3, 0, 0])


def test_words():
    assert trivia_words("The Old-Oat_Mill’s") == ["old", "oat", "mill", "s"]
    assert trivia_words("The The") == ["the", "the"] and trivia_words("?") == ["?"] and trivia_words(" ") == []
    assert joined_words("The Old-Oat (A)") == ["oldoat"] and joined_words("? (A)") == []


def test_a_text_without_words_of_its_own():
    """As TriviaQA's words an alias of articles alone is not an empty answer; as published it is."""
    assert answer_matches(["", "the the"], [["The The"]] * 2).tolist() == [False, True]
    assert answer_matches(["", "(a)"], [["The The"]] * 2, words=joined_words).tolist() == [True, True]
    assert answer_f1s(["", "hay"], [["The The"]] * 2, words=joined_words).tolist() == [1.0, 0.0]


def test_against_the_loop():
    generator = random.Random(0)
    texts = [
        " ".join(generator.choices(["the", "hen", "Hen.", "a", "old-oat", "rye,"], k=4)) + " x" for _ in range(60)
    ]
    accepted = [generator.choices(texts, k=3) for _ in texts]
    for words, own in ((trivia_words, by_hand.trivia), (joined_words, by_hand.squad)):
        expected = [by_hand.f1(text, listed, own) for text, listed in zip(texts, accepted, strict=True)]
        assert answer_f1s(texts, accepted, words=words) == pytest.approx(expected)
        same = [any(own(text) == own(other) for other in listed) for text, listed in zip(texts, accepted, strict=True)]
        assert answer_matches(texts, accepted, words=words).tolist() == same
        assert 0 < np.mean(same) < 1 and len(set(expected)) > 5


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        ("One and two. So the answer is 3.", "3"),
        ("The answer is 3.5. Done", "3.5"),
        ("So the answer is **(B)**.", "(B)"),
        ("the answer is: (B) a hen.\nMore", "(B) a hen"),
        ("So the answer is 2. No: so the answer is 3", "3"),
        ("So the answer is 2.\n\nQ: And?\nA: So the answer is 9.", "2"),
        ("The answer is\n] )", "] )"),
        ("3", None),
    ],
)
def test_conclusions(reply, said):
    assert conclusion(reply) == said


@pytest.mark.parametrize(
    ("reply", "text", "right"),
    [
        ("So the answer is Valid.", "valid", True),
        ("valid.", "valid", True),
        ("It is valid", "valid", False),
        ("So the answer is 5.", "-5", False),
        ("So the answer is ] >.", "] )", False),
        ("So the answer is B.", "(B)", True),
        ("So the answer is (B) a hen.", "(B)", True),
        ("So the answer is (A).", "(B)", False),
        ("So the answer is a hen.", "(A)", False),
    ],
)
def test_whether_a_conclusion_is_right(reply, text, right):
    assert conclusion_matches([reply], [[text]]).tolist() == [right]


def test_lengths_are_compared():
    with pytest.raises(ValueError, match="of one length"):
        answer_f1s(["hay"], [])
