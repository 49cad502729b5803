"""Naive oracles of what leads forget rows to a level, row by row: the loss of levels, and the bound from above."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from oracles.naive import Rows, token_logps


def huber(distance: Tensor, delta: float) -> Tensor:
    """x^2 / 2 up to delta, from there on the straight line that goes on with the same slope."""
    size = distance.abs()
    return distance**2 / 2 if float(size.detach()) <= delta else delta * size - delta**2 / 2


def unseen_level(
    model: nn.Module,
    forget_rows: Rows,
    levels: Sequence[float],
    *,
    rho: float = 1.0,
    delta: float = 0.5,
    token_levels: Sequence[Sequence[float]] | None = None,
    token_weight: float = 0.0,
    ordered: bool = False,
) -> Tensor:
    """Mean over rows of Huber(nll_i - rho tau_i), and token_weight times the mean over its tokens of theirs.

    `token_levels` are in the order of the tokens where they are `ordered`; otherwise they ascend within a row, and
    the likeliest token is led to the first of them, and so on.
    """
    terms = []
    for place, (row, level) in enumerate(zip(forget_rows, levels, strict=True)):
        logps = token_logps(model, row)
        term = huber(-logps.mean() - rho * level, delta)
        if token_levels is not None:
            paired = list(logps) if ordered else sorted(logps, key=lambda logp: float(logp.detach()), reverse=True)
            tokens = [huber(-logp - rho * nats, delta) for logp, nats in zip(paired, token_levels[place], strict=True)]
            term = term + token_weight * torch.stack(tokens).mean()
        terms.append(term)
    return torch.stack(terms).mean()


def pull_back(model: nn.Module, forget_rows: Rows, bounds: Sequence[float], delta: float = 0.5) -> Tensor:
    """Mean over all rows of Huber(nll_i - bound_i) where that is above 0, 0 elsewhere."""
    terms = []
    for row, bound in zip(forget_rows, bounds, strict=True):
        past = -token_logps(model, row).mean() - bound
        terms.append(huber(past, delta) if float(past.detach()) > 0 else past.detach() * 0)
    return torch.stack(terms).mean()
