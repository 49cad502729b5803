"""Forget rows brought to the level of a model that never saw them, from both sides."""

import dataclasses
from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import huber_loss

from ..data.roles import Role
from ..model.scoring import Scores, sum_rows
from .base import Loss, Needs


@dataclass(frozen=True)
class UnseenLevel(Loss):
    """The distance of each forget row to the level that a model which never saw it would give the row.

    L = mean_i Huber_delta(nll_i - rho tau_i), nll_i the mean over a row's answer tokens and tau_i its level (the run's
    `levels`), in nats per token; rho = min(1, progress / ramp) rises over the first part of the run, so that the row
    is led there and not thrown. Huber_delta(x) is x^2 / 2 up to delta and delta (|x| - delta / 2) above. The gradient
    changes sign at the level: a row that was carried past it comes back, and the row bound does not hold it.

    With a `token_weight` the tokens of a row are led to where those of an unseen row of its level lie: plus
    token_weight times the mean over t of Huber_delta(nll_t - rho tau_t), the mean of tau_t being tau_i. The highest
    tau_t go to the tokens that are predicted hardest; where nothing tells the tokens of a row apart, to those that
    are the least likely at the time. Without the term a row is at its level early, with some tokens far too unlikely
    and others known as before.

    Args:
        ramp: share of the run's steps over which the level rises; 0 puts it in its place from the first step on.
        delta: nats from which the pull grows no more, above 0; it is the largest slope.
        token_weight: of the token term, 0 or above; 0 leaves it out, as levels that are given ask for: they know
            nothing of tokens.

    Raises:
        ValueError: the run has no levels.
    """

    ramp: float = 0.5
    delta: float = 0.5
    token_weight: float = 1.0

    name = "unseen_level"
    unit = "row"
    on = Role.FORGET
    needs = Needs(levels=True)
    two_sided = True
    formula = "Huber_d(nll - rho tau) + w mean_t Huber_d(nll_t - rho tau_t), rho = min(1, progress / ramp)"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("ramp", 0 <= self.ramp <= 1, "from 0 to 1")
        self.require_positive("delta")
        self.require_not_negative("token_weight")
        if self.token_weight > 0:
            object.__setattr__(self, "needs", dataclasses.replace(type(self).needs, token_levels=True))

    def reached(self, progress: float) -> float:
        """rho: the share of the level that is aimed at in a step, from the share of the steps with it."""
        return min(1.0, progress / self.ramp) if self.ramp > 0 else 1.0

    def __call__(self, scores: Scores) -> Tensor:
        forget = scores.rows(Role.FORGET)
        assert forget.level is not None
        rho = self.reached(scores.progress)
        values = self._huber(forget.nll_per_token(), rho * forget.level)
        if self.token_weight > 0:
            assert forget.token_level is not None
            tokens = self._huber(-forget.logps, rho * forget.token_level)
            values = values + self.token_weight * sum_rows(tokens, forget.lengths) / forget.lengths
        return values

    def _huber(self, values: Tensor, targets: Tensor) -> Tensor:
        return huber_loss(values, targets.to(values), reduction="none", delta=self.delta)
