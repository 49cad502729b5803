"""ROUGE-L recall as RWKU publishes it: by hand, and against a loop over ways through both texts."""

import itertools

import pytest

from hf_unlearn.metrics import sentence_rouge_recalls


@pytest.mark.parametrize(
    ("answer", "reference", "recall"),
    [
        ("a red mill", "a red mill", 1.0),
        ("A red mill", "a red mill", 2 / 3),  # case counts
        ("red, mill", "red mill", 1 / 2),  # so does punctuation
        ("mill red", "red mill", 1 / 2),  # one of the two in order
        ("the mill. the red one.", "red mill", 1.0),  # each sentence brings its part
        ("sea sea", "sea and sea", 1 / 2),  # a word counts once
        ("sea", "sea. ", 1 / 2),  # the blank after the full stop is a word
        ("...", "red mill", 0.0),
        ("red", "..", 0.0),
    ],
)
def test_by_hand(answer, reference, recall):
    assert sentence_rouge_recalls([answer], [reference])[0] == pytest.approx(recall)


def test_of_one_sentence_without_repeats_it_is_the_longest_common_subsequence():
    def longest(left, right):
        sizes = range(len(left), 0, -1)
        runs = (run for size in sizes for run in itertools.combinations(left, size))
        return next((len(run) for run in runs if all(word in iter_ for iter_ in [iter(right)] for word in run)), 0)

    words = ["the", "red", "mill", "by", "sea"]
    orders = list(itertools.permutations(words, 4))[::11]
    found = sentence_rouge_recalls([" ".join(order) for order in orders], [" ".join(words)] * len(orders))
    assert found == pytest.approx([longest(order, words) / 5 for order in orders]) and 0.2 < found.mean() < 0.8


def test_lengths_that_differ_are_refused():
    with pytest.raises(ValueError, match="references"):
        sentence_rouge_recalls(["a"], ["a", "b"])
