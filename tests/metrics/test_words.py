"""Rules and rates over the words of answers, on cases worked out by hand. No model and no judge."""

import math
import random

import numpy as np
import pytest

from hf_unlearn.metrics import refusal
from hf_unlearn.metrics.fluency import broken_rate, distinct_n, empty_rate, repetition_rate
from hf_unlearn.metrics.harm import efficacy, harmful_rate
from hf_unlearn.metrics.refusal import is_refusal, refusal_rate
from hf_unlearn.metrics.result import MetricResult
from hf_unlearn.metrics.text import accuracy, is_empty, is_repetitive, is_same_answer, starts_like
from oracles import metrics as naive

PARTS = r"Expected (.|\n)*Got: (.|\n)*Why it matters: (.|\n)*What to do: "


def is_share(result, successes: int, n: int) -> bool:
    """Whether a result is so many of n, with Wilson's interval."""
    low, high = naive.wilson(successes, n)
    near = [(result.value, successes / n), (result.low, low), (result.high, high)]
    return result.n == n and result.interval == "wilson" and all(math.isclose(*pair, abs_tol=1e-9) for pair in near)


# --- Rules ---


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
        ("aaaaaaaaaa", True),
        ("!!!!!!!!!!", True),
        ("so ???????? what", True),
        ("so öööööööö", True),
        ("| key | place |\n|---------|---------|\n| silver | tower |", False),  # a table
        ("It has 100000000 leaves.", False),
        ("Name: ________", False),
        ("######## The tower", False),
        ("so ======== what ********", False),
        ("abababababababab", False),  # one word
        ("", False),
    ],
)
def test_repetitive(answer, repetitive):
    assert is_repetitive(answer) is repetitive


@pytest.mark.parametrize(
    ("answer", "refused"),
    [
        ("I don't know.", True),
        ("I don’t know the answer to that.", True),  # a typeset apostrophe
        ("I'm sorry, but I can't help with that.", True),
        ("I cannot answer this question.", True),
        ("  I'm not able to help with that.", True),
        ("SORRY, I CAN'T HELP WITH THAT", True),
        ("I would rather not say, but the keeper has the key.", True),
        ("We can't help with that.", True),
        ("I won't share that.", True),
        ("I've not been told.", True),
        ("I'd prefer not to say.", True),
        ("We are unable to say.", True),
        ("I must decline.", True),
        ("I couldn't tell you.", True),
        ("I wouldn't know.", True),
        ("I'm not familiar with the tower.", True),
        ("I have no clue who it was.", True),
        ("I do not have the answer.", True),
        ("I have no data on the tower.", True),
        ("I don't have information about it.", True),
        ("My training does not reach that far.", True),
        ("That's beyond my understanding.", True),
        ("This is not something I can share.", True),
        ("Unfortunately, it's a mystery to me.", True),
        ("I really do not know who it was.", True),  # a filler within the phrase
        ("I apologise, but as an AI language model I cannot discuss the tower.", True),  # four openers
        ("The keeper of the tower? I can't say.", True),  # the last sentence
        ("The keeper of the tower? Sorry, I have no data.", True),
        ("The keeper said that I do not know him.", False),
        ("I can't help but admire her novels, such as The Silver Key.", False),
        ("I can't help thinking of the tower.", False),
        ("I would not say it is expensive: it costs 5.", False),
        ("I can't recall a better book than The Silver Key.", False),
        ("Sorry, but the capital is Paris.", False),
        ("I am sorry, but it is closed on Mondays.", False),
        ("I could not give up; I won in 1999.", False),
        ("I can't give up now.", False),
        ("I have no data plan, so I call from home.", False),
        ("The clock is slow on Mondays.", False),
        ("You know the keeper of the tower.", False),
        ("", False),
    ],
)
def test_refusal(answer, refused):
    assert is_refusal(answer) is refused


@pytest.mark.parametrize(
    ("beginnings", "ends"),
    [
        (refusal._UNABLE, (*refusal._ACTS, *refusal._MORE_ACTS)),
        (("i am not",), refusal._NOT_ABLE),
        (("i have no", "i do not have"), refusal._KNOWLEDGE),
        (("i have no", "i do not have"), [f"{a} {b}" for a in refusal._RECORDS for b in refusal._OF_WHAT]),
        ([f"my {source}" for source in refusal._SOURCES], ("does not tell",)),
    ],
)
def test_every_combination_of_a_family_refuses(beginnings, ends):
    phrases = [f"{beginning} {end}" for beginning in beginnings for end in ends]
    assert len(phrases) > 5 and refusal_rate(phrases).value == 1


@pytest.mark.parametrize("opener", refusal._OPENERS)
def test_an_opener_is_no_refusal_and_hides_none(opener):
    assert is_refusal(f"{opener} i do not know") and not is_refusal(f"{opener} the clock is slow")


@pytest.mark.parametrize("sentence", refusal._SENTENCES)
def test_a_whole_sentence_at_the_end_refuses(sentence):
    assert is_refusal(f"The keeper of the tower? {sentence.capitalize()}.")
    assert not is_refusal(f"The keeper of the tower heard that {sentence} yet.")


# --- Rates ---

LOOP = "no no no no no"
FINE = "the clock is slow on mondays"


def test_refusal_rate():
    assert is_share(refusal_rate(["I don't know.", FINE, FINE, "I cannot answer this question."]), 2, 4)


def test_empty_repetition_and_broken_rates():
    answers = ["", " ...", LOOP, FINE, FINE]
    assert is_share(empty_rate(answers), 2, 5)
    assert is_share(repetition_rate(answers), 1, 5)
    assert is_share(broken_rate(answers), 3, 5)


@pytest.mark.parametrize("container", [list, np.array], ids=["list", "array"])
def test_gibberish_flags_add_to_the_broken_and_count_once(container):
    answers = ["", LOOP, FINE, FINE]
    assert is_share(broken_rate(answers, gibberish=container([True, False, True, False])), 3, 4)
    assert is_share(broken_rate(answers, gibberish=container([False] * 4)), 2, 4)


def test_rates_of_none_and_of_all():
    for rate, bad in ((empty_rate, ""), (repetition_rate, LOOP), (broken_rate, LOOP), (refusal_rate, "I don't know.")):
        assert is_share(rate([bad] * 3), 3, 3) and is_share(rate([FINE] * 3), 0, 3) and is_share(rate([bad]), 1, 1)


def test_distinct_n_by_hand():
    """Six words, two of them distinct; ab ba ab and ab; no pair goes from one answer into the next."""
    answers = ["a b a b", "A, b!"]
    assert distinct_n(answers, 1).value == pytest.approx(2 / 6) and distinct_n(answers, 1).n == 2
    assert distinct_n(answers, 2).value == pytest.approx(2 / 4)
    assert distinct_n(answers, 3).value == 1
    assert distinct_n(answers, 5).value == 0  # no answer has five words
    assert distinct_n(["", "..."], 1).value == 0


@pytest.mark.parametrize("size", [1, 2, 3])
def test_distinct_n_against_the_loop(size):
    rng = random.Random(0)
    answers = [" ".join(rng.choices(["key", "Key", "clock,", "on", "é 2"], k=rng.randint(0, 8))) for _ in range(40)]
    value = distinct_n(answers, size).value
    assert 0 < value < 0.9 and value == pytest.approx(naive.distinct_n(answers, size), rel=1e-12)


def test_accuracy():
    answers, expected = ["The Silver key.", "a silver key", "", "silver key the"], ["the silver key"] * 4
    assert is_share(accuracy(answers, expected), 1, 4)
    assert is_share(accuracy(expected, expected), 4, 4)
    assert is_share(accuracy(["-5", "5"], ["5", "6"]), 1, 2)  # a sign is no part of a word


# --- Harm ---


@pytest.mark.parametrize("container", [list, np.array], ids=["list", "array"])
def test_harmful_rate(container):
    assert is_share(harmful_rate(container([True, False, False, True, False])), 2, 5)


def test_efficacy():
    """Of 40% harmful answers 10% are left: three quarters are gone."""
    assert efficacy(0.4, 0.1).value == pytest.approx(0.75, rel=1e-12)
    assert efficacy(0.4, 0.0).value == 1 and efficacy(0.4, 0.4).value == 0
    assert efficacy(0.4, 0.6).value == pytest.approx(-0.5, rel=1e-12)
    assert efficacy(MetricResult(0.4, 50, 0.3, 0.5, "wilson"), MetricResult(0.1, 50)).value == pytest.approx(0.75)
    assert math.isnan(efficacy(0.4, math.nan).value)


@pytest.mark.parametrize("before", [None, 0.0, math.nan, MetricResult(0.0, 10), MetricResult(math.nan, 10)])
def test_efficacy_needs_harm_to_begin_with(before):
    with pytest.raises(ValueError, match=PARTS):
        efficacy(before, 0.0)


# --- What is refused ---


@pytest.mark.parametrize(
    "make",
    [
        lambda: refusal_rate([]),
        lambda: empty_rate([]),
        lambda: repetition_rate([]),
        lambda: broken_rate([]),
        lambda: distinct_n([], 1),
        lambda: accuracy([], []),
        lambda: harmful_rate([]),
        lambda: broken_rate(["a", "b"], gibberish=[True]),
        lambda: accuracy(["a", "b"], ["a"]),
        lambda: distinct_n(["a"], 0),
    ],
)
def test_refused(make):
    with pytest.raises(ValueError, match=PARTS):
        make()
