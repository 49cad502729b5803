"""The objective: the weighted sum of the losses, each the exact mean over an optimizer step, and the row bound."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache, reduce
from operator import or_

import numpy as np
import torch
from torch import Tensor

from ..data.roles import Role
from ..errors import input_error
from ..losses.base import DistributionLoss, Loss, Needs, Unit
from ..losses.pull_back import PullBack
from ..model.head_query import TokenReadout
from ..model.scoring import RowScores, Scores, attached_zero, sum_rows
from .config import UnlearningConfig
from .level_checks import require_held, require_levels_for
from .methods import Methods
from .step.checks import require_retain_side

_UNIT_COLUMN: dict[Unit, int] = {"token": 0, "row": 1}
# Logged whatever the losses are, nats per answer token of a role.
_WATCHED = {"forget_nll": Role.FORGET, "retain_nll": Role.RETAIN, "holdout_nll": Role.HOLDOUT}


@dataclass(frozen=True)
class Objective:
    """L = w_f * sum_i w_i L_forget_i + w_r * sum_j w_j L_retain_j + w_a * sum_k w_k L_anchor_k.

    The first two are the survey's equation 1, with named terms; the third holds rows that the model has never seen.

    Every L is the mean over all answer tokens or all rows of its role in the optimizer step. One micro-batch of one
    rank contributes the sum of its items over the count of the whole step; the contributions of a step add up to L
    exactly, however it was split.

    Args:
        forget: terms of the forget side.
        retain: terms of the retain side, none of them for `retain_loss="none"`.
        forget_weight: w_f.
        retain_weight: w_r.
        anchor: terms over holdout rows, none of them for `anchor_loss="none"`.
        anchor_weight: w_a, which no weighting moves.
        pull_back: of forget rows past the bound, where that holds from both sides; one more term of the forget side.
    """

    forget: Sequence[Loss]
    retain: Sequence[Loss]
    forget_weight: float = 1.0
    retain_weight: float = 1.0
    anchor: Sequence[Loss] = ()
    anchor_weight: float = 0.5
    pull_back: PullBack | None = None

    # What follows from the terms is asked for in every step, and worked out once.

    @cached_property
    def terms(self) -> list[Loss]:
        """The terms of all sides."""
        return [term for _, _, terms in self.sides for term in terms]

    @cached_property
    def layers(self) -> frozenset[float]:
        """Layers whose hidden states a term reads."""
        return frozenset().union(*(term.layers for term in self.terms))

    @property
    def reference_layers(self) -> frozenset[float]:
        """Layers whose hidden states under the reference a term reads."""
        return frozenset().union(*(term.layers for term in self.terms if term.needs.reference_hidden))

    @cached_property
    def needs(self) -> Needs:
        """What all terms together must be supplied with."""
        return reduce(or_, (term.needs for term in self.terms))

    def readouts(self, references: Mapping[Role, RowScores]) -> list[TokenReadout]:
        """What the terms read of the distributions at answer tokens, each under its component's name.

        Args:
            references: scores of the batch under the reference, with logits where a term needs them.
        """
        readouts = []
        for side, _, terms in self.sides:
            for term in terms:
                if isinstance(term, DistributionLoss):
                    rows = references.get(term.on) if term.on in term.needs.reference_logits else None
                    logits = None if rows is None else rows.logits
                    name = _component(side, term)
                    alone = term.on in self._without_trained_logps
                    readouts.append(
                        TokenReadout(name, term.on, term.at_positions, term.grad_logits, logits, alone=alone)
                    )
        return readouts

    @cached_property
    def _without_trained_logps(self) -> frozenset[Role]:
        """Roles whose log-probs no term is differentiated through; never forget rows, which bounds and levels read."""
        # A call of its own may read anything of the scores.
        reading = [term for term in self.terms if type(term).__call__ is not DistributionLoss.__call__]
        read = {Role.FORGET}.union(*(term.needs.roles for term in reading if term.needs.logps))
        return frozenset(Role) - read

    @cached_property
    def sides(self) -> tuple[tuple[str, float, Sequence[Loss]], ...]:
        """(name, weight, terms) of each side."""
        return (
            ("forget", self.forget_weight, [*self.forget, self.pull_back] if self.pull_back else self.forget),
            ("retain", self.retain_weight, self.retain),
            ("anchor", self.anchor_weight, self.anchor),
        )

    @property
    def mismatches(self) -> int:
        """Random retain answers that each forget row must bring along."""
        return max(term.mismatches for term in self.forget)

    @property
    def component_names(self) -> list[str]:
        """Names of everything that a call returns beside the total, the same for every micro-batch."""
        terms = [_component(side, term) for side, _, terms in self.sides for term in terms]
        watched = [name for name, role in _WATCHED.items() if role in self.needs.roles | {Role.FORGET}]
        return [*terms, *watched, "bound_share"]

    def with_retain_weight(self, retain_weight: float | None) -> "Objective":
        """The same objective with another w_r; None for its own."""
        if retain_weight is None or retain_weight == self.retain_weight:
            return self
        return replace(self, retain_weight=retain_weight)

    def __call__(
        self, scores: Scores, counts: Tensor, *, every_weight: bool = False
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The contribution of one micro-batch.

        Args:
            scores: of the micro-batch, or of the rows of one side of it.
            counts: answer tokens and rows of each role in the whole optimizer step, [roles, 2].
            every_weight: give each weight that the forward has read a gradient, if one of 0: other ranks, which may
                have rows of other roles, wait for it.

        Returns:
            the total, attached to the graph; and by name, detached, [2] each: the contribution of every unweighted
            component ("forget/npo", "retain/nll"), of the NLL per answer token of the forget, retain and holdout rows,
            and of the share of forget rows at the bound, beside the micro-batch's share of the step's items.
        """
        active, means = rows_below(scores.forget), _Means()
        if scores.forget is not None:
            means.add("bound_share", (~active).float(), Role.FORGET, "row")
        for name, role in _WATCHED.items():
            rows = scores.of(role)
            if rows is not None and len(rows.logps):  # none where the forward ended below the head
                means.add(name, -rows.logps.detach(), role, "token")
        watched, weights = len(means.names), []
        for side, weight, terms in self.sides:
            for term in terms:
                # No retain or holdout row when their ratio is below 1, or rows of the other side when a step takes
                # them apart.
                if scores.of(term.on) is None:
                    continue
                name = _component(side, term)
                items = term(scores.for_term(name))
                if side == "forget" and not term.two_sided:
                    items = hold_bounded(items, scores, term, active)
                means.add(name, items, term.on, term.unit)
                weights.append(weight * term.weight)
        values, components = means.parts(counts)
        # One part alone is multiplied by 1 too: as it is, it is a view that nobody may change in place.
        as_they_are = len(weights) > 1
        weighted = [
            value if weight == 1 and as_they_are else weight * value
            for weight, value in zip(weights, values[watched:], strict=True)
        ]
        total = sum(weighted[1:], weighted[0]) if weighted else counts.new_zeros((), dtype=torch.float32)
        if every_weight and self.layers:  # else all that is read comes from the head
            total = total + attached_zero(scores)
        return total, components


@dataclass(frozen=True)
class _Means:
    """One micro-batch's parts of means over a step's items.

    They are divided together: so small a tensor costs no more than the call, and each call is a node of the graph.
    """

    names: list[str] = field(default_factory=list)
    sums: list[Tensor] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)  # items of the micro-batch
    cells: list[int] = field(default_factory=list)  # of the counts laid flat: the items of the step

    def add(self, name: str, items: Tensor, role: Role, unit: Unit) -> None:
        """The mean of items of a role over its tokens or rows in the step."""
        self.names.append(name)
        self.sums.append(items.sum())
        self.sizes.append(len(items))
        self.cells.append(2 * role + _UNIT_COLUMN[unit])

    def parts(self, counts: Tensor) -> tuple[Sequence[Tensor], dict[str, Tensor]]:
        """Each part, attached to the graph; and by name, detached, the part and the share of the step's items, [2]."""
        if not self.names:
            return (), {}
        step = counts.clamp(min=1).take(_cells(tuple(self.cells), counts.device))
        sums = torch.stack(self.sums)
        values = sums.to(torch.promote_types(sums.dtype, torch.float32)) / step
        sizes = torch.from_numpy(np.array(self.sizes, dtype=np.float64))
        shares = sizes.to(values.device, values.dtype, non_blocking=True) / step
        return values.unbind(), dict(zip(self.names, torch.stack([values.detach(), shares], 1).unbind(), strict=True))


def _component(side: str, term: Loss) -> str:
    """The name of a term's component, in logs and of what the head reads for it; a side has a name once."""
    return f"{side}/{term.name}"


@lru_cache
def _cells(cells: tuple[int, ...], device: torch.device) -> Tensor:
    """Places in the counts of a step, on its device: made once, as a GPU is waited for."""
    return torch.tensor(cells, device=device)


def build_objective(methods: Methods, args: UnlearningConfig) -> Objective:
    """The objective of a run.

    Raises:
        ValueError: a weighting or a step wrapper that reads the retain side of a run without one, a forget loss over
            rows to which no row bound applies, a bound that holds no loss, levels that are not there, or a loss of
            holdout rows that is no anchor.
    """
    require_retain_side(methods)
    require_held(methods.forget, args)
    weights = args.forget_weight, args.retain_weight
    pull_back = PullBack() if args.forget_bound_sides == "both" else None
    objective = Objective(methods.forget, methods.retain, *weights, methods.anchor, args.anchor_weight, pull_back)
    require_levels_for(objective.terms, args)
    for term in objective.forget:
        if term.on in (Role.RETAIN, Role.RETAIN_ALTERNATE):
            raise input_error(
                expected="forget losses over forget, alternate or mismatch rows",
                got=f"{term.name}, over retain rows",
                why="a retain row belongs to no forget row, so the row bound could not hold it",
                fix="pass it as retain_loss",
            )
    for side, _, terms in objective.sides:
        for term in terms:
            if (side == "anchor") != (term.on is Role.HOLDOUT):
                raise input_error(
                    expected="holdout rows under anchor losses, and no others",
                    got=f"{term.name}, over {term.on.name.lower()} rows, as a {side} loss",
                    why="it would have the weight, and be logged under the name, of another side",
                    fix="pass losses of holdout rows as anchor_loss, and others as forget_loss or retain_loss",
                )
    return objective


def rows_below(forget: RowScores | None) -> Tensor:
    """Which forget rows of a batch still push: NLL per token below their bound, bool [R]; all of them without one."""
    if forget is None:
        return torch.ones(0, dtype=torch.bool)
    if forget.bound is None:
        return torch.ones_like(forget.lengths, dtype=torch.bool)
    return -sum_rows(forget.logps.detach(), forget.lengths) / forget.lengths < forget.bound


def hold_bounded(values: Tensor, scores: Scores, term: Loss, active: Tensor) -> Tensor:
    """The same values, those of rows at the bound detached: they stay in the mean and give no gradient.

    A row's alternate and its mismatches are held with it. Keeping the count fixed leaves the other rows' pull as it
    was.
    """
    rows = scores.of(term.on)
    assert rows is not None
    if active.device.type == "cpu" and bool(active.all()):  # a GPU would be waited for
        return values
    pushes = active[rows.source]
    if term.unit == "token":
        pushes = pushes[rows.row_of_token()]
    return torch.where(pushes, values, values.detach())
