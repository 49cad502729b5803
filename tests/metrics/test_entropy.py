"""The entropy of n-grams: by hand, and against a loop."""

import math

import pytest

from hf_unlearn.metrics import n_gram_entropies, n_gram_entropy


def test_by_hand():
    """Of "a b a b a" the pairs are ab, ba, ab, ba (1 bit), the triples aba, bab, aba (log2 3 - 2/3 bits)."""
    triples = math.log2(3) - 2 / 3
    found = n_gram_entropies(["A, b a b a!", "a b c d", "one", ""])
    # Four words: 3 pairs, 2 triples, all distinct.
    assert found == pytest.approx([(2 / 3 + 4 / 3 * triples) / 2, (2 / 3 * math.log2(3) + 4 / 3) / 2, 0, 0])
    result = n_gram_entropy(["a b c d", "one"])
    assert result.value == pytest.approx(found[1] / 2) and result.n == 2


def test_against_a_loop():
    texts = ["the cat saw the cat and the dog saw the cat", "rye " * 9, "a hen laid an egg on the hill by the sea"]
    expected = []
    for text in texts:
        given, total = text.split(), 0.0
        for n, weight in ((2, 2 / 3), (3, 4 / 3)):
            grams = [tuple(given[k : k + n]) for k in range(len(given) - n + 1)]
            for gram in set(grams):
                share = grams.count(gram) / len(grams)
                total -= weight * share * math.log(share) / math.log(2)
        expected.append(total / 2)
    found = n_gram_entropies(texts)
    assert found == pytest.approx(expected) and found[1] == 0 < found[0] < found[2]
