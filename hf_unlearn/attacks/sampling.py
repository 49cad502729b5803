"""Sampling: how probable it is that some of many answers, drawn as a service draws them, holds the row's own."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..data.tokenized_row import TokenizedRow, trained_ids
from ..evaluation.stop_rule import StopRule
from ..model.head_query import TokenReadout
from ..model.score_rows import RowScorer
from .arguments import as_tuple, is_count
from .base import Attack, Leak, Threat
from .rows import AttackedRows
from .target import Target


@dataclass(frozen=True)
class Sampling(Attack):
    """(n, p)-discoverable extraction: the probability that n sampled answers hold the row's own, word for word.

    p_z = prod_t q(y_t | x, y_<t), with q the next-token distribution under the decoding scheme: logits over the
    temperature, the `top_k` likeliest tokens, renormalised, in transformers' order. One teacher-forced forward gives
    p_z exactly; nothing is sampled. The leak is 1 - (1 - p_z)^n, for each n of `queries`. What ends an answer is not
    counted: an answer that goes on after the row's own holds it as well. `queries_needed` has it the other way round.

    It counts verbatim answers alone. Answers that can be guessed (a yes, a digit) come out of any model in a million
    samples: read the leak beside the control's in the same setting.

    Args:
        queries: n, numbers of sampled answers, from 1 on; 1 is always among the settings.
        temperature: of the decoding scheme, above 0.
        top_k: likeliest tokens that are sampled from; None for all.

    Paper: Hayes et al. 2024, https://arxiv.org/abs/2410.19482.
    """

    queries: tuple[int, ...] = (1, 100, 10_000, 1_000_000)
    temperature: float = 1.0
    top_k: int | None = 40

    name = "sampling"
    threat = Threat.LOGITS
    score = "probability that the sampled answers hold the row's own, word for word"
    cost = "one forward of the rows"
    formula = "1 - (1 - prod_t q(y_t))^n, q under top-k and temperature"
    paper = "Hayes et al. 2024, arXiv:2410.19482"

    def __post_init__(self) -> None:
        super().__post_init__()
        as_tuple(self, "queries", is_count, "a whole number from 1 on")
        self.require_positive("temperature")
        self.require("top_k", self.top_k is None or self.top_k >= 1, "a whole number from 1 on, or None")

    def run(self, target: Target, rows: AttackedRows) -> Iterable[Leak]:
        logps = self.answer_logps(target, rows.rows)
        for queries in sorted({1, *self.queries}):
            yield Leak({"queries": queries}, probability_within(logps, queries))

    def answer_logps(self, target: Target, rows: Sequence[TokenizedRow]) -> NDArray[np.float64]:
        """log p_z of each row, [N], nats; minus infinity where top-k never draws one of the answer's tokens."""
        stop = StopRule.of(target.model, target.tokenizer, target.ends)
        counted = [len(stop.strip(trained_ids(row["labels"][1:]))) for row in rows]
        scorer = RowScorer(target.collator, target.process, target.batch_size)
        function = partial(decoding_logps, temperature=self.temperature, top_k=self.top_k)
        readout = TokenReadout("decoding", None, function)
        sums = np.full(len(rows), -np.inf)  # of an answer that is its end alone: there is nothing to get out
        for places, scores in scorer.batches(target.model, rows, range(len(rows)), "likelihoods", [readout]):
            # In fp64: thousands of tokens are added up.
            parts = scores.readouts["decoding"].double().cpu().split(scores.lengths.tolist())
            for place, part in zip(places, parts, strict=True):
                if counted[place]:
                    sums[place] = float(part[: counted[place]].sum())
        return sums


def decoding_logps(
    logits: Tensor, token_ids: Tensor, reference: Tensor | None, *, temperature: float, top_k: int | None
) -> Tensor:
    """log q(y_t) under a decoding scheme, [t], nats: minus infinity for a token that it never draws.

    Args:
        logits: [t, V].
        token_ids: y_t, [t].
        reference: not read.
        temperature: logits are divided by it.
        top_k: tokens below the k-th likeliest are left out, ties with it kept, as in transformers; None for all.
    """
    scaled = logits / temperature
    own = scaled.gather(-1, token_ids[:, None]).squeeze(-1)
    if top_k is None or top_k >= scaled.shape[-1]:
        return own - scaled.logsumexp(-1)
    lowest = scaled.topk(top_k, dim=-1).values[:, -1]
    kept = scaled.masked_fill_(scaled < lowest[:, None], -float("inf"))
    return (own - kept.logsumexp(-1)).masked_fill_(own < lowest, -float("inf"))


def probability_within(logps: NDArray[np.float64], queries: int) -> NDArray[np.float64]:
    """1 - (1 - p_z)^n, exact for small p_z too.

    Args:
        logps: log p_z of each row, [N], nats.
        queries: n.
    """
    with np.errstate(divide="ignore"):  # log(1 - 1): certain at the first query
        return -np.expm1(queries * np.log1p(-np.exp(np.minimum(logps, 0.0))))


def queries_needed(logps: NDArray[np.float64], probability: float = 0.5) -> NDArray[np.float64]:
    """Queries n after which an answer was drawn with a probability: log(1 - p) / log(1 - p_z), at least 1, [N].

    Infinite where no query ever holds the answer, or no number of them that a double can hold. Not rounded.

    Args:
        logps: log p_z of each row, [N], nats.
        probability: p, between 0 and 1.

    Paper: Hayes et al. 2024, https://arxiv.org/abs/2410.19482.
    """
    with np.errstate(divide="ignore"):
        each = np.log1p(-np.exp(np.minimum(logps, 0.0)))
        return np.maximum(np.log1p(-probability) / each, 1.0)
