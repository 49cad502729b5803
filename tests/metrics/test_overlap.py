"""ROUGE recall, common substrings and BLEU: by hand, against the loops, rouge_score and sacrebleu. No model."""

import math
import random
from difflib import SequenceMatcher

import pytest
import sacrebleu
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenizers import DefaultTokenizer

from hf_unlearn.metrics.overlap import (
    bleu,
    by_length,
    common_substring,
    longest_common_substrings,
    rouge_f1,
    rouge_f1s,
    rouge_recall,
    rouge_recalls,
    rouge_recalls_of,
)
from oracles import metrics as naive
from oracles import muse as of_muse

PARTS = r"Expected (.|\n)*Got: (.|\n)*Why it matters: (.|\n)*What to do: "
KINDS = {"rouge1": naive.rouge_1_recall, "rougeL": naive.rouge_l_recall}
TEXT = "The keepers keep keys, running; ran the clock's tower No. 12 on Mondays happily happy silver-waltz"
WORDS = TEXT.split()


def pairs(count: int, seed: int = 0) -> tuple[list[str], list[str]]:
    """References of 3 to 12 words, and answers that keep most of their words and change the others."""
    rng = random.Random(seed)
    references = [" ".join(rng.choices(WORDS, k=rng.randint(3, 12))) for _ in range(count)]
    answers = []
    for reference in references:
        kept = [word if rng.random() < 0.7 else rng.choice(WORDS) for word in reference.split()]
        answers.append("  ".join(kept[: rng.randint(1, len(kept))]))
    return answers, references


# --- By length ---


def test_means_of_the_thirds_by_length_by_hand():
    texts = ["a b c", "a", "a b", "a b c d", "a b", "x", "a b c d e"]  # 3 1 2 4 2 1 5 words
    found = by_length([0.3, 0.1, 0.2, 0.4, 0.6, 0.5, 0.9], texts)
    expected = {"short": (0.1 + 0.5 + 0.2) / 3, "middle": (0.6 + 0.3) / 2, "long": (0.4 + 0.9) / 2}
    assert {name: each.value for name, each in found.items()} == pytest.approx(expected)
    assert [each.n for each in found.values()] == [3, 2, 2]
    assert by_length([0.3, 0.1], ["a", "b"]) == {}
    with pytest.raises(ValueError, match=PARTS):
        by_length([0.3], ["a", "b"])


# --- ROUGE ---


@pytest.mark.parametrize(
    ("answer", "reference", "rouge1", "rouge_l"),
    [
        ("the cat sat", "the cat sat on the mat", 1 / 2, 1 / 2),
        ("the cat sat on the mat", "the cat sat", 1, 1),  # recall: what is said besides does not count
        ("mat on cat", "the cat sat on the mat", 1 / 2, 1 / 6),  # all three, but no two in order
        ("on mat", "the cat sat on the mat", 1 / 3, 1 / 3),  # in order, with a gap
        ("the the the", "the mat", 1 / 2, 1 / 2),  # a word matches once
        ("THE Cat, sat!", "the cat sat", 1, 1),
        ("she runs", "she was running", 2 / 3, 2 / 3),  # stems
        ("a b", "c d", 0, 0),
        ("", "the mat", 0, 0),
        (" ?!", "the mat", 0, 0),
        ("mat", "", 0, 0),  # as rouge_score has it
        ("mat", "mat", 1, 1),
    ],
)
def test_rouge_by_hand(answer, reference, rouge1, rouge_l):
    assert list(rouge_recalls([answer], [reference], "rouge1")) == pytest.approx([rouge1], rel=1e-12)
    assert list(rouge_recalls([answer], [reference], "rougeL")) == pytest.approx([rouge_l], rel=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_rouge_against_the_loop_and_rouge_score(kind):
    answers, references = pairs(80)
    values = list(rouge_recalls(answers, references, kind))
    scorer = RougeScorer([kind], use_stemmer=True)
    peer = [scorer.score(*row)[kind].recall for row in zip(references, answers, strict=True)]
    expected = [KINDS[kind](*row) for row in zip(answers, references, strict=True)]
    assert len(set(expected)) > 20
    assert values == pytest.approx(expected, rel=1e-12) and values == pytest.approx(peer, rel=1e-12)
    result = rouge_recall(answers, references, kind)
    assert result.value == pytest.approx(naive.average(expected), rel=1e-12) and result.n == 80
    assert result.interval == "bootstrap" and result.low < result.value < result.high


def test_rouge_l_unless_told_otherwise_and_never_above_rouge_1():
    answers, references = pairs(60, seed=1)
    single, longest = rouge_recalls(answers, references, "rouge1"), rouge_recalls(answers, references, "rougeL")
    assert all(left >= right - 1e-12 for left, right in zip(single, longest, strict=True))
    assert rouge_recall(answers, references) == rouge_recall(answers, references, "rougeL")
    assert rouge_recall(answers, references).value < rouge_recall(answers, references, "rouge1").value


def test_several_kinds_at_once_are_those_of_one_at_a_time(monkeypatch):
    answers, references = pairs(30, seed=5)
    expected = {kind: list(rouge_recalls(answers, references, kind)) for kind in KINDS}
    tokenize, seen = DefaultTokenizer.tokenize, []
    monkeypatch.setattr(DefaultTokenizer, "tokenize", lambda self, text: seen.append(text) or tokenize(self, text))
    found = rouge_recalls_of(answers, references, tuple(KINDS))
    assert sorted(seen) == sorted([*answers, *references])  # each text once for both
    assert {kind: list(values) for kind, values in found.items()} == expected
    assert list(found) == ["rouge1", "rougeL"] and expected["rouge1"] != expected["rougeL"]


def test_an_unknown_rouge_is_named():
    for name, meant in (("rougel", "rougeL"), ("rouge-1", "rouge1")):
        with pytest.raises(ValueError, match=PARTS) as caught:
            rouge_recall(["a"], ["a"], name)
        assert f"did you mean '{meant}'" in str(caught.value) or f" or '{meant}'" in str(caught.value)


@pytest.mark.parametrize(
    ("answer", "reference", "rouge1", "rouge_l", "published"),
    [
        ("the cat sat", "the cat sat on the mat", 2 / 3, 2 / 3, 2 / 3),  # P 1, R 1 / 2
        ("the cat sat on the mat", "the cat sat", 2 / 3, 2 / 3, 2 / 3),  # what is said besides does count
        ("mat on cat", "the cat sat on the mat", 2 / 3, 2 / 9, 2 / 9),  # P 1 / 3, R 1 / 6 in order
        ("she runs", "she was running", 2 / 5, 2 / 5, 2 / 5),  # words, not stems: P 1 / 2, R 1 / 3
        ("Zoë", "Zoë Smith", 2 / 3, 2 / 3, 2 / 3),  # as published "zo" alone, and "zo smith"
        ("Noël", "No l", 0, 0, 1),
        ("город Москва", "Москва", 2 / 3, 2 / 3, 0),
        ("", "the mat", 0, 0, 0),
    ],
)
def test_rouge_f1_by_hand(answer, reference, rouge1, rouge_l, published):
    assert list(rouge_f1s([answer], [reference], "rouge1")) == pytest.approx([rouge1], rel=1e-12)
    assert list(rouge_f1s([answer], [reference])) == pytest.approx([rouge_l], rel=1e-12)
    assert list(rouge_f1s([answer], [reference], published=True)) == pytest.approx([published], rel=1e-12)


def test_rouge_f1_against_the_loop_and_with_stems():
    answers, references = pairs(40)
    expected = [of_muse.rouge_l_f1(*pair) for pair in zip(answers, references, strict=True)]
    assert len(set(expected)) > 10
    assert list(rouge_f1s(answers, references)) == pytest.approx(expected, rel=1e-12)
    assert list(rouge_f1s(answers, references, published=True)) == pytest.approx(expected, rel=1e-12)
    scorer = RougeScorer(["rougeL"], use_stemmer=True)
    stemmed = [scorer.score(*pair)["rougeL"].fmeasure for pair in zip(references, answers, strict=True)]
    assert list(rouge_f1s(answers, references, stemmer=True)) == pytest.approx(stemmed, rel=1e-12)
    assert rouge_f1(["she runs"], ["she was running"], stemmer=True).value == pytest.approx(4 / 5)
    assert rouge_f1(answers, references).value == pytest.approx(sum(expected) / 40)


# --- Common substrings ---


@pytest.mark.parametrize(
    ("answer", "reference", "share"),
    [
        ("xx silver key xx", "the silver key", 11 / 14),  # with the space before it
        ("the  silver\n key", "the silver key", 1),
        ("the silver key", " the\tsilver  key ", 1),
        ("say: the silver key!", "the silver key", 1),
        ("silver", "the silver key", 6 / 14),
        ("", "the silver key", 0),
        ("xyz", "abc", 0),
        ("b", "abcd", 1 / 4),
        ("abxcd", "abcd", 2 / 4),  # one run, not two
    ],
)
def test_common_substring_by_hand(answer, reference, share):
    assert list(longest_common_substrings([answer], [reference])) == pytest.approx([share], rel=1e-12)


def test_common_substring_against_the_loop():
    answers, references = pairs(40, seed=2)
    expected = [naive.common_substring(*row) for row in zip(answers, references, strict=True)]
    assert len(set(expected)) > 10
    assert list(longest_common_substrings(answers, references)) == pytest.approx(expected, rel=1e-12)
    result = common_substring(answers, references)
    assert result.value == pytest.approx(naive.average(expected), rel=1e-12) and result.n == 40
    assert result.interval == "bootstrap" and result.low < result.value < result.high


def test_frequent_characters_count_in_long_texts():
    """From 200 characters on, difflib would leave out those that make more than 1% of a text: nearly all."""
    reference = " ".join(pairs(30, seed=3)[1])
    answer = "so " + reference[50:400] + " and so on"
    share = float(longest_common_substrings([answer], [reference])[0])
    assert len(reference) > 800 and 350 / len(reference) <= share < 1
    assert share == pytest.approx(naive.common_substring(answer, reference), rel=1e-12)
    assert list(longest_common_substrings(["ab" * 300], ["ab" * 300])) == [1]


@pytest.mark.parametrize("letters", ["ab", "abcdefgh é", "a\U0001f511\ud800b"])
def test_common_substring_against_difflib(letters):
    rng = random.Random(6)
    texts = ["".join(rng.choices(letters, k=rng.randint(1, 120))).strip() or "a" for _ in range(60)]
    texts = [" ".join(text.split()) for text in texts]
    answers, references = texts[:30], texts[30:]
    for answer, reference in zip(answers, references, strict=True):
        match = SequenceMatcher(None, answer, reference, autojunk=False).find_longest_match()
        assert match.size > 0
        share = float(longest_common_substrings([answer], [reference])[0])
        assert share == pytest.approx(match.size / len(reference), rel=1e-12)


# --- BLEU ---


def test_bleu_by_hand():
    """4/5 x 3/4 x 2/3 x 1/2 = 1/5; all precisions 1, and four words for six; 8 of 9, 6 of 7, 4 of 5, 2 of 3."""
    assert bleu(["a b c d e"], ["a b c d f"]).value == pytest.approx((1 / 5) ** (1 / 4), rel=1e-9)
    assert bleu(["a b c d"], ["a b c d e f"]).value == pytest.approx(math.exp(1 - 6 / 4), rel=1e-9)
    pooled = (8 / 9 * 6 / 7 * 4 / 5 * 2 / 3) ** (1 / 4)
    assert bleu(["a b c d e", "a b c d"], ["a b c d f", "a b c d"]).value == pytest.approx(pooled, rel=1e-9)


def test_bleu_of_the_same_texts_is_1():
    references = ["the keeper has the silver key", "the clock is slow on mondays"]
    result = bleu(references, references)
    assert result.value == pytest.approx(1, rel=1e-9) and result.n == 2 and result.interval == "bootstrap"
    assert result.low == pytest.approx(1, rel=1e-9) and result.high == pytest.approx(1, rel=1e-9)


def test_bleu_against_the_loop_and_sacrebleu():
    rng = random.Random(4)
    references = [" ".join(rng.choices("abcdefgh", k=rng.randint(6, 14))) for _ in range(40)]
    answers = [
        " ".join(word if rng.random() < 0.8 else rng.choice("abcdefgh") for word in reference.split()[:-1])
        for reference in references
    ]
    result = bleu(answers, references)
    assert 0.2 < result.value < 0.9 and result.n == 40
    assert result.value == pytest.approx(naive.bleu(answers, references), rel=1e-9)
    assert result.value == pytest.approx(sacrebleu.corpus_bleu(answers, [references]).score / 100, rel=1e-9)
    assert 0 < result.low < result.value < result.high < 1
    assert bleu(answers, references) == result


def test_bleu_is_between_the_texts_and_not_within_them():
    """With the references in another order nothing fits any more."""
    answers = ["the keeper has the silver key", "every clock is slow on mondays"]
    assert bleu(answers, answers[::-1]).value < 0.3 < bleu(answers, answers).value
    assert bleu(["", ""], answers).value == 0


# --- What is refused ---


@pytest.mark.parametrize("metric", [rouge_recall, rouge_recalls, common_substring, longest_common_substrings, bleu])
def test_refused(metric):
    kind = ("rougeL",) if metric in (rouge_recall, rouge_recalls) else ()
    # One text is not a list of texts, though its letters could be taken for some.
    for answers, references in (([], []), (["a", "b"], ["a"]), ([], ["a"]), ("abc", "abc")):
        with pytest.raises(ValueError, match=PARTS):
            metric(answers, references, *kind)


@pytest.mark.parametrize("metric", [rouge_recall, common_substring, bleu])
def test_no_text_in_errors(metric):
    with pytest.raises(ValueError) as caught:
        metric(["xyzzy"], ["xyzzy", "xyzzy"])
    assert "xyzzy" not in str(caught.value)
