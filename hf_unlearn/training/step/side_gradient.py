"""The gradient of one side of the objective, as step wrappers are given it."""

from typing import NamedTuple

from torch import Tensor

from ...data.roles import Role
from ...steps.base import Gradients

FORGET_SIDE = (Role.FORGET, Role.ALTERNATE, Role.MISMATCH)
RETAIN_SIDE = (Role.RETAIN, Role.RETAIN_ALTERNATE, Role.HOLDOUT)  # what is kept, trained on or not


class SideGradient(NamedTuple):
    """The gradient of one side over a whole optimizer step.

    Attributes:
        loss: of this rank's rows.
        gradient: the mean over ranks; zeros for weights that it does not reach.
        reached: whether each weight got a gradient on this rank, bool [weights].
    """

    loss: Tensor
    gradient: Gradients
    reached: Tensor
