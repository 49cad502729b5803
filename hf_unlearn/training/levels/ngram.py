"""An interpolated n-gram (Witten-Bell) over token ids: what can be said of a row from the retain rows alone."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

ORDER = 4


@dataclass(frozen=True)
class _Grams:
    """The n-grams of one length that were counted, sorted by (context, token).

    Attributes:
        keys: context * V + token of every n-gram; its place here is its number, the context of the next length.
        counts: how often it was seen.
        followed: N(c), tokens seen after each context of this length.
        kinds: T(c), distinct ones among them.
    """

    keys: np.ndarray
    counts: np.ndarray
    followed: np.ndarray
    kinds: np.ndarray

    @classmethod
    def of(cls, keys: np.ndarray, counts: np.ndarray, vocabulary: int, contexts: int) -> "_Grams":
        """With what follows from n-grams and counts, for so many contexts."""
        own = keys // vocabulary
        followed = np.bincount(own, weights=counts, minlength=contexts)
        return cls(keys, counts, followed, np.bincount(own, minlength=contexts))


@dataclass(frozen=True)
class NGram:
    """P_n(w|c) = l P_ML(w|c) + (1 - l) P_{n-1}(w|c'), with l = N(c) / (N(c) + T(c)); below the unigram 1 / V.

    N(c) is how many tokens were seen after the context c, T(c) how many distinct ones, c' the context without its
    first token. After a context that was never seen P_n = P_{n-1}. No n-gram crosses the start of a row: its first
    token has no context, its second one token of it.

    Witten and Bell, 1991, method C, in the interpolated form of Chen and Goodman, 1998.

    Attributes:
        vocabulary: V.
        lengths: of the n-grams, 1 to n.
    """

    vocabulary: int
    lengths: tuple[_Grams, ...]

    @classmethod
    def count(cls, rows: Sequence[np.ndarray], vocabulary: int, order: int = ORDER) -> "NGram":
        """The n-gram of whole rows of token ids.

        Args:
            rows: token ids of each, below `vocabulary`.
            vocabulary: V.
            order: n.
        """
        ids, places = _flat(rows)
        lengths: list[_Grams] = []
        context = np.zeros(len(ids), np.int64)  # the empty one, of which there is one
        for length in range(order):
            inside = places >= length
            if not inside.any():  # no row has so many tokens
                break
            keys, numbers, counts = np.unique(
                context[inside] * vocabulary + ids[inside], return_inverse=True, return_counts=True
            )
            contexts = 1 if not lengths else len(lengths[-1].keys)
            lengths.append(_Grams.of(keys, counts, vocabulary, contexts))
            grams = np.full(len(ids), -1)
            grams[inside] = numbers
            context = _before(grams)
        return cls(vocabulary, tuple(lengths))

    def shortened(self, order: int) -> "NGram":
        """The n-gram of at most so many tokens, of the same rows."""
        return NGram(self.vocabulary, self.lengths[:order])

    def counted(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """The n-grams of each length and how often each was seen: what `of_counted` makes the same one of."""
        return [(grams.keys, grams.counts) for grams in self.lengths]

    @classmethod
    def of_counted(cls, counted: Sequence[tuple[np.ndarray, np.ndarray]], vocabulary: int) -> "NGram":
        """The n-gram of what `counted` gave of another."""
        sizes = [1, *(len(keys) for keys, _ in counted)]
        lengths = [
            _Grams.of(keys, counts, vocabulary, size) for (keys, counts), size in zip(counted, sizes, strict=False)
        ]
        return cls(vocabulary, tuple(lengths))

    def logps(self, rows: Sequence[np.ndarray]) -> np.ndarray:
        """log P of every token of every row given the tokens before it, row after row, [tokens], nats."""
        ids, places = _flat(rows)
        probabilities = np.full(len(ids), 1 / self.vocabulary)
        context = np.zeros(len(ids), np.int64)
        for length, grams in enumerate(self.lengths):
            known = (places >= length) & (context >= 0)
            keys = np.where(known, context * self.vocabulary + ids, -1)
            numbers = np.searchsorted(grams.keys, keys).clip(max=len(grams.keys) - 1)
            seen = known & (grams.keys[numbers] == keys)
            place = np.where(known, context, 0)
            followed, kinds = grams.followed[place], grams.kinds[place]
            counts = np.where(seen, grams.counts[numbers], 0)
            known &= followed > 0  # a context may have ended every row that it was in
            # l P_ML + (1 - l) P = N / (N + T) * count / N + T / (N + T) * P
            mixed = (counts + kinds * probabilities) / np.maximum(followed + kinds, 1)
            probabilities = np.where(known, mixed, probabilities)
            context = _before(np.where(seen, numbers, -1))
        return np.log(probabilities)

    def next_logps(self, rows: Sequence[np.ndarray], wanted: np.ndarray) -> np.ndarray:
        """log P of every token of the vocabulary after tokens of rows, [n, V], nats.

        Args:
            rows: token ids of each.
            wanted: places of those tokens among the tokens of all rows, row after row, [n].
        """
        ids, places = _flat(rows)
        probabilities = np.full((len(wanted), self.vocabulary), 1 / self.vocabulary)
        context = np.zeros(len(ids), np.int64)  # of the token after each: the empty one
        for length, grams in enumerate(self.lengths):
            own = context[wanted]
            known = own >= 0
            known[known] = grams.followed[own[known]] > 0
            number = own[known]
            weight = grams.followed[number] + grams.kinds[number]
            probabilities[known] *= (grams.kinds[number] / weight)[:, None]
            # The n-grams of a context follow each other.
            first, last = (np.searchsorted(grams.keys, (number + more) * self.vocabulary) for more in (0, 1))
            lines = np.repeat(np.arange(len(number)), last - first)
            seen = np.repeat(first - np.append(0, (last - first).cumsum())[:-1], last - first) + np.arange(len(lines))
            tokens = grams.keys[seen] % self.vocabulary
            probabilities[np.flatnonzero(known)[lines], tokens] += grams.counts[seen] / weight[lines]
            if length + 1 < len(self.lengths):
                context = self._ending(length, ids, places)
        return np.log(probabilities)

    def _ending(self, length: int, ids: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Numbers of the n-grams of `length + 1` tokens that end at each token; -1 for one that was never seen."""
        context = np.zeros(len(ids), np.int64)
        for before, grams in enumerate(self.lengths[: length + 1]):
            inside = (places >= before) & (context >= 0)
            keys = np.where(inside, context * self.vocabulary + ids, -1)
            numbers = np.searchsorted(grams.keys, keys).clip(max=len(grams.keys) - 1)
            ending = np.where(inside & (grams.keys[numbers] == keys), numbers, -1)
            context = _before(ending)
        return ending


def _flat(rows: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Ids of all rows in one line, and the place of each token in its own row."""
    sizes = np.array([len(row) for row in rows])
    ids = np.concatenate([np.zeros(0, np.int64), *rows]).astype(np.int64)
    return ids, np.arange(len(ids)) - np.repeat(sizes.cumsum() - sizes, sizes)


def _before(grams: np.ndarray) -> np.ndarray:
    """The n-gram that ends before each token; a row's first token is left to its place."""
    shifted = np.roll(grams, 1)
    shifted[:1] = -1
    return shifted
