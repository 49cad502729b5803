"""Leak at k: the best of k sampled answers, as who asks again and again gets it."""

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..data.tokenized_row import prompt_ids
from .answer_scores import ANSWER_SCORE, answer_scores, expected_answers, longest_answer, unasked
from .arguments import as_tuple, is_count, is_number
from .base import Attack, Leak, Threat
from .rows import AttackedRows
from .target import Target


@dataclass(frozen=True)
class LeakAtK(Attack):
    """The expected score of the best of k sampled answers to a row's prompt, without bias from n >= k samples.

    E[max of k] = sum_i C(i - 1, k - 1) / C(n, k) S_(i), with S_(1) <= ... <= S_(n) the scores of n samples. Greedy
    decoding, which no draw changes, comes first.

    Args:
        samples: n, answers drawn to each prompt at each temperature.
        temperatures: of the draws, above 0.
        k: numbers of answers that the attacker may choose from; those above n are left out.

    Paper: Reisizadeh et al. 2025, https://arxiv.org/abs/2511.04934.
    """

    samples: int = 200
    temperatures: tuple[float, ...] = (0.2, 0.8, 1.0)
    k: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128)

    name = "leak_at_k"
    threat = Threat.QUERIES
    score = ANSWER_SCORE
    cost = "samples x temperatures answers to each row"
    formula = "sum_i C(i-1, k-1) / C(n, k) S_(i)"
    paper = "Reisizadeh et al. 2025, arXiv:2511.04934"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_positive("samples")
        as_tuple(self, "temperatures", lambda value: is_number(value) and 0 < value < math.inf, "above 0 and finite")
        as_tuple(self, "k", is_count, "a whole number from 1 on")
        self.require("k", min(self.k) <= self.samples, f"numbers of answers, some of them at most {self.samples}")

    def unfit(self, target: Target, rows: AttackedRows) -> str | None:
        return unasked(rows.rows)

    def run(self, target: Target, rows: AttackedRows) -> Iterable[Leak]:
        expected = expected_answers(target, rows.rows)
        texts = [target.text(ids) for ids in expected]
        prompts = [prompt_ids(row) for row in rows.rows]
        room = longest_answer(expected)

        def scores(temperature: float, sample: int) -> NDArray[np.float64]:
            seed = _seed_of(target.seed, sample)  # equal prompts get equal draws of one seed
            drawn = target.answers(prompts, max_new_tokens=room, temperature=temperature, seed=seed)
            return answer_scores(target, [target.text(ids) for ids in drawn], texts)

        yield Leak({"temperature": 0, "k": 1}, scores(0.0, 0))
        for temperature in self.temperatures:
            drawn = np.array([scores(temperature, sample) for sample in range(self.samples)])
            for k in sorted(self.k):
                if k <= self.samples:
                    yield Leak({"temperature": temperature, "k": k}, expected_maximum(drawn, k))


def expected_maximum(scores: NDArray[np.float64] | Sequence[float], k: int) -> NDArray[np.float64]:
    """E[max of k] = sum_i C(i - 1, k - 1) / C(n, k) S_(i), the mean of the maximum over all sets of k of n scores.

    Args:
        scores: [n] or [n, N], in any order.
        k: at most n.
    """
    ascending = np.sort(np.asarray(scores, dtype=np.float64), axis=0)
    n = len(ascending)
    sets = math.comb(n, k)
    # Whole numbers divided at once: C(200, 100) has no exact double, the quotient a good one.
    weights = np.array([math.comb(i, k - 1) / sets for i in range(n)])
    return np.minimum(np.tensordot(weights, ascending, 1), ascending[-1])  # rounding leaves it a hair above


def _seed_of(seed: int, sample: int) -> int:
    digest = hashlib.sha256(f"{seed} {sample}".encode()).digest()
    return int.from_bytes(digest[:8], "little")
