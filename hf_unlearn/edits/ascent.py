"""Steps uphill on the NLL of the forget rows, of lengths that are searched for, up to the level of unseen rows."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data.batch import Batch, indexed
from ..data.tokenized_row import TokenizedRow
from ..evaluation.questioner import Questioner
from ..model.gradients import inner_product, norm
from ..model.output_head import output_head
from ..model.scoring import score_answers
from ..results.edit_report import Tried
from .base import EditData
from .matrices import Matrix

Matrices = Mapping[str, Matrix]
Gradients = dict[str, Tensor]

_WATCHED = 1000  # retain rows that are scored after a step, at most
_TRIALS = 14  # forwards over the forget rows in the search for a step's length, at most
_NEAR = 0.02  # of the way from where the rows were to the goal: near enough


def drawn_rows(rows: Sequence[TokenizedRow], count: int, seed: int) -> list[TokenizedRow]:
    """At most so many rows, drawn without replacement, in their order."""
    places = np.random.default_rng(seed).permutation(len(rows))[:count]
    return [rows[place] for place in sorted(places)]


def row_batches(model: Any, questioner: Questioner, rows: Sequence[TokenizedRow]) -> Iterator[Batch]:
    """Rows as padded batches on the model's device, in their order; the model's head has been examined before."""
    head, size = output_head(model), questioner.batch_size
    for start in range(0, len(rows), size):
        batch = indexed(questioner.collator.collate_rows(list(rows[start : start + size])))
        batch = {name: value.to(model.device) for name, value in batch.items()}
        # Here, not in the first forward of a batch, in which those who listen to layers would hear its forward, too.
        head.examine(model, batch)
        yield batch


def forget_gradient(model: Any, data: EditData, matrices: Matrices, bound: float = math.inf) -> Gradients:
    """The gradient of mean_i min(nll_i, bound) over the forget rows, by matrix, added up in fp32 or wider.

    nll_i is the mean over a row's answer tokens, so neither the size of the set nor the length of rows scales it. A
    row that has reached the bound does not push any more.
    """
    head, parameters = output_head(model), [p for matrix in matrices.values() for p in matrix.parameters]
    sums = [torch.zeros_like(p, dtype=torch.promote_types(p.dtype, torch.float32)) for p in parameters]
    for batch in row_batches(model, data.questioner, data.forget):
        scores, _ = score_answers(model, head, batch)
        loss = scores.nll_per_token().clamp(max=bound).sum() / len(data.forget)
        for total, part in zip(sums, torch.autograd.grad(loss, parameters, materialize_grads=True), strict=True):
            total += part
    parts = iter(sums)
    return {name: matrix.gradient([next(parts) for _ in matrix.parameters]) for name, matrix in matrices.items()}


@dataclass(frozen=True)
class Ascent:
    """How steps are made.

    Attributes:
        goal: mean NLL per token that the forget rows are to reach, nats.
        steps: at most.
        rate: of every step; None to search for the rate that brings each step its share of the way.
        word: what steps are called in the report.
    """

    goal: float
    steps: int
    rate: float | None = None
    word: str = "step"


def ascend(
    model: Any,
    data: EditData,
    matrices: Matrices,
    ascent: Ascent,
    direction: Callable[[Gradients], Gradients],
    gradient: Callable[[], Gradients] | None = None,
) -> list[Tried]:
    """W <- W + rate * direction(gradient), until the forget rows are at the goal; what was measured after each step.

    Without a rate, step k of n is to bring them k / n of the way, by a rate that is searched for. With
    one, only a step that would carry them beyond the goal is shortened. Weights are kept in fp32 or wider and rounded
    once. A search ends at the rate that came nearest, which may be 0.

    Args:
        model: changed in place.
        data: forget rows, and retain rows to be watched, of which at most 1,000 are.
        matrices: that are moved.
        ascent: goal, steps, rate.
        direction: of the gradient of the forget rows' NLL, by matrix.
        gradient: computes it; None for `forget_gradient`.
    """
    data = replace(data, retain=drawn_rows(data.retain, _WATCHED, data.seed))
    start = data.tried(model, {ascent.word: 0})
    tried, now = [start], start.forget_nll
    kept = {name: matrix.read() for name, matrix in matrices.items()}
    near = _NEAR * abs(ascent.goal - now)
    for step in range(1, ascent.steps + 1):
        if now >= ascent.goal - near:
            break
        slope = forget_gradient(model, data, matrices, ascent.goal) if gradient is None else gradient()
        way = direction(slope)
        # To first order the NLL rises by rate * <gradient, way>.
        rise = float(inner_product(list(slope.values()), list(way.values())))
        del slope  # as large as the layers, and not read again
        goal = start.forget_nll + (ascent.goal - start.forget_nll) * step / ascent.steps

        def nll_at(rate: float, way: Gradients = way) -> float:
            for name, matrix in matrices.items():
                matrix.write(kept[name] + rate * way[name])
            return float(data.questioner.nll(model, data.forget).mean())

        if not 0 < rise < math.inf:
            break  # nothing pushes, or nothing can be calculated any more
        if ascent.rate is None:
            # Where rows are known by heart the NLL is flat, and the first order much too far: no farther than |W|.
            rate = min((goal - now) / rise, float(norm(list(kept.values())) / norm(list(way.values()))))
            rate, now = _search(nll_at, goal, rate, now, near)
        else:
            rate, reached = ascent.rate, nll_at(ascent.rate)
            if not reached <= ascent.goal + near:
                rate, reached = _search(nll_at, ascent.goal, ascent.rate / 2, now, near)
            now = reached
        for name, matrix in matrices.items():
            kept[name] += rate * way[name]
            matrix.write(kept[name])
        tried.append(Tried({ascent.word: step, "rate": rate}, now, _retain_nll(model, data)))
    return [*tried[:-1], replace(tried[-1], chosen=True)]


def _retain_nll(model: Any, data: EditData) -> float | None:
    return float(data.questioner.nll(model, data.retain).mean()) if len(data.retain) else None


def _search(
    nll_at: Callable[[float], float], goal: float, rate: float, start: float, near: float
) -> tuple[float, float]:
    """The rate whose NLL is nearest to the goal, and that NLL: false position, kept off the ends of the bracket.

    Args:
        nll_at: the NLL at a rate.
        goal: where it is to be, above the start.
        rate: tried first.
        start: the NLL at rate 0, where it ends if every other rate is farther from the goal.
        near: how near is enough.
    """
    best = low = (0.0, start)
    high: tuple[float, float] | None = None
    for _ in range(_TRIALS):
        nll = nll_at(rate)
        if math.isfinite(nll) and abs(nll - goal) < abs(best[1] - goal):
            best = rate, nll
        if abs(nll - goal) <= near:
            break
        if nll < goal:
            low = rate, nll
        else:  # what is not finite went too far
            high = rate, nll
        if high is None:
            share = (goal - start) / (nll - start) if nll > start else math.inf
            rate *= min(max(share, 1.2), 10.0)
        else:
            share = (goal - low[1]) / (high[1] - low[1])
            # Along a direction the NLL is first flat and then steep, so that a bare false position creeps.
            share = min(max(share, 0.1), 0.8) if math.isfinite(share) else 0.1
            rate = low[0] + share * (high[0] - low[0])
    return best
