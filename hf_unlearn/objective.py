"""Stage 4c, the objective: weighted terms, the row bound, the exact mean over a step. It sees scores, not models."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_

import torch
from torch import Tensor

from .config import UnlearningConfig
from .data.roles import Role
from .loss_specs import LossSpec, forget_losses, retain_losses
from .losses.base import Loss, Needs, Unit
from .scoring import RowScores, Scores

_UNIT_COLUMN: dict[Unit, int] = {"token": 0, "row": 1}


@dataclass(frozen=True)
class Objective:
    """L = w_f * sum_i w_i L_forget_i + w_r * sum_j w_j L_retain_j (the survey's equation 1, with named terms).

    Every L is the mean over all answer tokens or all rows of its role in the optimizer step. One micro-batch of one
    rank contributes the sum of its items over the count of the whole step; the contributions of a step add up to L
    exactly, however it was split.

    Args:
        forget: terms of the forget side.
        retain: terms of the retain side, none of them for `retain_loss="none"`.
        forget_weight: w_f.
        retain_weight: w_r.
    """

    forget: Sequence[Loss]
    retain: Sequence[Loss]
    forget_weight: float = 1.0
    retain_weight: float = 1.0

    @property
    def needs(self) -> Needs:
        """What all terms together must be supplied with."""
        return reduce(or_, (term.needs for term in (*self.forget, *self.retain)), Needs())

    @property
    def mismatches(self) -> int:
        """Random retain answers that each forget row must bring along."""
        return max(term.mismatches for term in self.forget)

    @property
    def component_names(self) -> list[str]:
        """Names of everything that a call returns beside the total, the same for every micro-batch."""
        terms = [f"forget/{term.name}" for term in self.forget] + [f"retain/{term.name}" for term in self.retain]
        retain = ["retain_nll"] if Role.RETAIN in self.needs.roles else []
        return [*terms, "forget_nll", *retain, "bound_share"]

    def __call__(self, scores: Scores, counts: Tensor, active: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The contribution of one micro-batch.

        Args:
            scores: of the micro-batch.
            counts: answer tokens and rows of each role in the whole optimizer step, [roles, 2].
            active: forget rows of the micro-batch that are below the bound, bool [R].

        Returns:
            the total, attached to the graph; and by name, detached: each unweighted component ("forget/npo",
            "retain/nll"), the NLL per answer token of the forget and retain rows, and the share of forget rows at the
            bound.
        """
        assert scores.forget is not None
        forget_tokens, forget_rows = counts[Role.FORGET].clamp(min=1)
        components = {
            "forget_nll": -scores.forget.logps.sum() / forget_tokens,
            "bound_share": (~active).sum() / forget_rows,
        }
        if scores.retain is not None:
            components["retain_nll"] = -scores.retain.logps.sum() / counts[Role.RETAIN, 0].clamp(min=1)
        total = counts.new_zeros((), dtype=torch.float32)
        for term in self.forget:
            items = hold_bounded(term(scores), scores, term, active)
            value = items.sum() / _count(counts, term)
            components[f"forget/{term.name}"] = value
            total = total + self.forget_weight * term.weight * value
        for term in self.retain:
            if scores.of(term.on) is None:  # a micro-batch may hold no retain row when retain_ratio is below 1
                continue
            value = term(scores).sum() / _count(counts, term)
            components[f"retain/{term.name}"] = value
            total = total + self.retain_weight * term.weight * value
        return total, {name: value.detach() for name, value in components.items()}


def build_objective(args: UnlearningConfig, forget_loss: LossSpec, retain_loss: LossSpec) -> Objective:
    """The objective of a run: the trainer's own arguments where they are given, else the config's."""
    return Objective(
        forget_losses(args.forget_loss if forget_loss is None else forget_loss),
        retain_losses(args.retain_loss if retain_loss is None else retain_loss),
        args.forget_weight,
        args.retain_weight,
    )


def rows_below(forget: RowScores, bound: Tensor | float | None) -> Tensor:
    """Which forget rows of a batch still push: nll per token below the bound, bool [R].

    Args:
        forget: scores of the batch's forget rows.
        bound: nats per token; one for all rows, one for each row of the forget set [N], or None for no bound.
    """
    nll = forget.nll_per_token().detach()
    if bound is None:
        return torch.ones_like(nll, dtype=torch.bool)
    return nll < (bound[forget.row] if isinstance(bound, Tensor) else bound)


def hold_bounded(values: Tensor, scores: Scores, term: Loss, active: Tensor) -> Tensor:
    """The same values, those of rows at the bound detached: they stay in the mean and give no gradient.

    A row's alternate and its mismatches are held with it. Keeping the count fixed leaves the other rows' pull as it
    was.
    """
    rows = scores.of(term.on)
    assert rows is not None
    pushes = active[rows.source]
    if term.unit == "token":
        pushes = pushes[rows.row_of_token()]
    return torch.where(pushes, values, values.detach())


def _count(counts: Tensor, term: Loss) -> Tensor:
    return counts[term.on, _UNIT_COLUMN[term.unit]].clamp(min=1)
