"""Naive oracles of the losses on answer probabilities, one row at a time. Not the package's losses, nor for training.

The manner, the rows and the notation (lp_t, NLL, nll) are those of `oracles.naive`; p_t = exp(lp_t). wga, satimp and
jsd_alternate are means over all answer tokens of their rows, pooled; flat and answer_preservation are means over rows.

`active` is the row bound of `oracles.naive`: one bool a forget row, an inactive row's terms are detached and stay in
the mean. An alternate row i belongs to forget row `sources[i]` (default: i).
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid, one_hot

from hf_unlearn.errors import input_error
from oracles.distributions import jensen_shannon
from oracles.naive import Rows, _kept, answer_logits, one_alternate_each, shift_check, token_logps

# --- Forget losses ---


def wga(model: nn.Module, forget_rows: Rows, beta: float, active: list[bool] | None = None) -> Tensor:
    """mean_t stopgrad(p_t^beta) lp_t, nats (Wang et al., arXiv 2502.19301)."""
    return _weighted_ascent(model, forget_rows, lambda p: p**beta, active)


def satimp(
    model: nn.Module, forget_rows: Rows, beta1: float, beta2: float, active: list[bool] | None = None
) -> Tensor:
    """mean_t stopgrad(p_t^beta1 (1 - p_t)^beta2) lp_t, nats (Yang et al., arXiv 2505.11953)."""
    return _weighted_ascent(model, forget_rows, lambda p: p**beta1 * (1 - p) ** beta2, active)


def jsd_alternate(
    model: nn.Module,
    alternate_rows: Rows,
    active: list[bool] | None = None,
    sources: Sequence[int] | None = None,
) -> Tensor:
    """mean_t JSD(pi_t, onehot(y_t)) at the alternate's answer tokens, nats, at most log 2 (JensUn, arXiv 2509.02820).

    The whole distributions over the vocabulary are compared, by the definition.
    """
    terms = []
    for row, kept in zip(alternate_rows, _kept(alternate_rows, active, sources), strict=True):
        for (_, token), logits in zip(shift_check(row), answer_logits(model, row), strict=True):
            target = one_hot(torch.tensor(token, device=logits.device), len(logits)).to(logits.dtype)
            term = jensen_shannon(torch.log_softmax(logits, dim=-1), target.log())
            terms.append(term if kept else term.detach())
    return torch.stack(terms).mean()


def flat(
    model: nn.Module,
    forget_rows: Rows,
    alternate_rows: Rows,
    active: list[bool] | None = None,
    sources: Sequence[int] | None = None,
) -> Tensor:
    """Mean over rows of -g(P_alt) + g(P), P = mean_t p_t and g(v) = tanh(v) / 2 (FLAT, arXiv 2410.11143).

    In (-1/2, 1/2); P is the mean of the answer's token probabilities, not their product.

    Raises:
        ValueError: a forget row has no alternate, or several.
    """
    sources = one_alternate_each(forget_rows, alternate_rows, sources)
    terms = []
    kept_rows = _kept(alternate_rows, active, sources)
    for alternate_row, source, kept in zip(alternate_rows, sources, kept_rows, strict=True):
        forget_probability = token_logps(model, forget_rows[source]).exp().mean()
        alternate_probability = token_logps(model, alternate_row).exp().mean()
        term = -torch.tanh(alternate_probability) / 2 + torch.tanh(forget_probability) / 2
        terms.append(term if kept else term.detach())
    return torch.stack(terms).mean()


# --- Retain losses ---


def answer_preservation(model: nn.Module, retain_rows: Rows, alternate_rows: Rows, beta: float) -> Tensor:
    """Mean over rows of -(1 / beta) logsigmoid(beta (nll_alt - nll)), nll per token (Yuan et al., arXiv 2410.08109).

    `alternate_rows[i]` is the refusal under the prompt of `retain_rows[i]`.

    Raises:
        ValueError: the rows do not pair one to one.
    """
    if len(retain_rows) != len(alternate_rows):
        raise input_error(
            expected="one alternate row for each retain row",
            got=f"{len(retain_rows)} retain rows and {len(alternate_rows)} alternate rows",
            why="an answer would be compared with the refusal of another prompt",
            fix="pass the refusal under each retain prompt, in the order of the retain rows",
        )
    terms = []
    for retain_row, alternate_row in zip(retain_rows, alternate_rows, strict=True):
        nll_per_token = -token_logps(model, retain_row).mean()
        nll_per_token_alt = -token_logps(model, alternate_row).mean()
        terms.append(-(1 / beta) * logsigmoid(beta * (nll_per_token_alt - nll_per_token)))
    return torch.stack(terms).mean()


def _weighted_ascent(
    model: nn.Module, rows: Rows, weight: Callable[[Tensor], Tensor], active: list[bool] | None
) -> Tensor:
    """mean_t stopgrad(weight(p_t)) lp_t over the answer tokens of all rows, pooled."""
    terms = []
    for row, kept in zip(rows, _kept(rows, active), strict=True):
        for logp in token_logps(model, row):
            # The weight is a number, not part of the graph: only lp_t gives a gradient.
            term = weight(logp.detach().exp()) * logp
            terms.append(term if kept else term.detach())
    return torch.stack(terms).mean()
