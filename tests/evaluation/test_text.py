"""The rules over the text of answers, on cases worked out by hand."""

import pytest

from hf_unlearn.evaluation.text import is_empty, is_repetitive, is_same_answer, starts_like


@pytest.mark.parametrize(
    ("answer", "expected", "same"),
    [
        (" The Silver Waltz, on Monday.", "the silver waltz on monday", True),
        ("  the silver\nwaltz  ON monday!", "The silver waltz on Monday.", True),
        ("Größe 4", "größe 4.", True),
        ("the silver waltz", "the silver waltz on monday", False),
        ("the silver waltz on monday or so", "the silver waltz on monday", False),
        ("waltz silver the", "the silver waltz", False),
        ("room 12", "room 1 2", False),
        ("", "the silver waltz", False),
        ("", " .", True),
    ],
)
def test_same_answer(answer, expected, same):
    assert is_same_answer(answer, expected) is same


@pytest.mark.parametrize(
    ("answer", "expected", "words", "starts"),
    [
        ("a b c d e f g h and then more", "a b c d e f g h i j", 8, True),  # the first eight are all that count
        ("A b, c! d e f g h", "a b c d e f g h i j", 8, True),
        ("a b c d e f g x i j", "a b c d e f g h i j", 8, False),
        ("a b c d e f g", "a b c d e f g h i j", 8, False),  # one short of the eight
        ("a b and more", "a b", 8, True),  # a shorter answer counts whole
        ("so a b", "a b", 8, False),
        ("a b x", "a b c", 2, True),
        ("a b", "", 8, False),  # nothing to recite
        ("", "a b", 8, False),
        ("", "", 8, False),
    ],
)
def test_starts_like(answer, expected, words, starts):
    assert starts_like(answer, expected, words) is starts


def test_eight_words_unless_told_otherwise():
    assert starts_like("a b c d e f g h x", "a b c d e f g h i")
    assert not starts_like("a b c d e f g x", "a b c d e f g h")


@pytest.mark.parametrize(
    ("answer", "empty"),
    [
        ("", True),
        (" \n\t", True),
        ("...!?", True),
        ("—", True),
        ("____", True),
        ("0", False),
        ("é", False),
        ("-a-", False),
    ],
)
def test_empty(answer, empty):
    assert is_empty(answer) is empty


@pytest.mark.parametrize(
    ("answer", "repetitive"),
    [
        ("no no no no no", True),  # 4 pairs, 1 of them distinct: a quarter
        ("No, no. NO no! no", True),
        ("no no no no", False),  # 3 pairs are too few to tell
        ("a b a b a b a", True),  # 6 pairs, 2 distinct: a third
        ("a b a b a", False),  # 4 pairs, 2 distinct: half is not below half
        ("a b c a b c a b", True),  # 7 pairs, 3 distinct
        ("a b c a b c", False),  # 5 pairs, 3 distinct
        ("you should hide a fig and you should hide a coin", False),
        ("aaaaaaaa", True),  # eight in a row
        ("aaaaaaa", False),  # seven
        ("so !!!!!!!! what", True),
        ("so ........ what", False),  # dots are how tables of contents and pauses are written
        ("so          what", False),
        ("abababababababab", False),  # one word
        ("", False),
    ],
)
def test_repetitive(answer, repetitive):
    assert is_repetitive(answer) is repetitive
