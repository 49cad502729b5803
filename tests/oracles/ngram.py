"""The interpolated Witten-Bell n-gram of NLTK, whose unigram has 1 / V below it as the package's has. Slow."""

import math
from collections.abc import Sequence

from nltk.lm import Vocabulary, WittenBellInterpolated
from nltk.util import everygrams


class NgramOracle:
    """Counted on rows of token ids, one score at a time."""

    def __init__(self, rows: Sequence[Sequence[int]], vocabulary: int, order: int = 4) -> None:
        words = [str(token) for row in rows for token in row]
        self.model = WittenBellInterpolated(order, vocabulary=Vocabulary(words))
        self.model.fit([[*everygrams([str(token) for token in row], max_len=order)] for row in rows])
        unigrams = self.model.counts.unigrams
        seen, kinds = unigrams.N(), len(unigrams)
        # NLTK's own is unigrams.freq(word), which gives nothing to words that were never seen.
        self.model.estimator.unigram_score = lambda word: (unigrams[word] + kinds / vocabulary) / (seen + kinds)
        self.order = order

    def logp(self, row: Sequence[int], place: int) -> float:
        """log P of the token at a place of a row, given those before it."""
        context = [str(token) for token in row[max(0, place - self.order + 1) : place]]
        return math.log(self.model.unmasked_score(str(row[place]), context))
