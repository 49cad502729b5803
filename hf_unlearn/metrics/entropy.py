"""Entropy of the n-grams of generated texts: low where a text repeats itself, high where its words vary."""

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from .checks import Floats, strings
from .description import MetricDescription
from .result import MetricResult, mean
from .segmentation import words

_WEIGHTS = {2: 2 / 3, 3: 4 / 3}


def n_gram_entropies(answers: Sequence[str]) -> Floats:
    """Weighted entropy of each text's pairs and triples of words, [N], in bits: (2/3 H_2 + 4/3 H_3) / 2.

    H_n = -sum_g f_g log2 f_g over the n-grams g of `metrics.words`; 0 for a text without one.

    Args:
        answers: [N] generated.

    Raises:
        ValueError: no answers.

    Paper: Zhang et al. 2018, https://arxiv.org/abs/1809.05972; the weights as in Meng et al. 2022,
    https://arxiv.org/abs/2202.05262, and RWKU, Jin et al. 2024, https://arxiv.org/abs/2406.10890.
    """
    texts = [words(answer) for answer in strings("answers", answers)]
    return np.array([sum(weight * _entropy(text, n) for n, weight in _WEIGHTS.items()) / 2 for text in texts])


def n_gram_entropy(answers: Sequence[str]) -> MetricResult:
    """Mean over the texts of `n_gram_entropies`, in bits, with its arguments."""
    return mean(n_gram_entropies(answers))


def _entropy(text: Sequence[str], n: int) -> float:
    counts = Counter(zip(*(text[start:] for start in range(n)), strict=False))
    total = counts.total()
    return -sum(count / total * math.log2(count / total) for count in counts.values())


DESCRIPTIONS = (
    MetricDescription(
        "fluency_entropy",
        "entropy of free answers",
        "weighted entropy of pairs and triples of words in answers to instructions",
        "bits",
        greater_is_better=True,
        rows="retain",
    ),
)
