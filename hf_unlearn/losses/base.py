"""What a loss is: values of answer tokens or rows, and what it must be supplied with to compute them."""

import abc
import dataclasses
import math
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from torch import Tensor

from ..component import Component, IncompatibleSetups, TrainingSetup
from ..data.roles import Role
from ..model.hidden_states import layer_problem
from ..model.scoring import Scores

Unit = Literal["token", "row"]

HIDDEN_UNDER_REENTRANT: IncompatibleSetups = {
    TrainingSetup.REENTRANT: "DDP cannot tell there which weights the hidden states of a block were computed from"
}
WHOLE_REFERENCE_DISTRIBUTIONS: IncompatibleSetups = {
    TrainingSetup.CACHED_REFERENCE: "it needs the reference's whole distributions, and log-probs are cached"
}


@dataclass(frozen=True)
class Needs:
    """What a loss must be supplied with.

    Attributes:
        roles: rows that the batch must hold for it (forget rows are always there).
        logps: whether it is differentiated through log-probs or distributions; False for losses of hidden states
            alone, for which the forward may end early.
        hidden: roles whose hidden states [T, H] it reads, at the layers that the loss names in `layers`.
        reference_logps: roles whose log-probs under the frozen reference it reads.
        reference_logits: roles whose distributions under the frozen reference it reads.
        reference_hidden: roles whose hidden states under the frozen reference it reads.
        levels: whether it reads the level of each forget row (the run's `levels`).
        token_levels: whether it reads the level of each answer token of forget rows.
    """

    roles: frozenset[Role] = frozenset()
    logps: bool = True
    hidden: frozenset[Role] = frozenset()
    reference_logps: frozenset[Role] = frozenset()
    reference_logits: frozenset[Role] = frozenset()
    reference_hidden: frozenset[Role] = frozenset()
    levels: bool = False
    token_levels: bool = False

    def __or__(self, other: "Needs") -> "Needs":
        merged = {f.name: getattr(self, f.name) | getattr(other, f.name) for f in dataclasses.fields(self)}
        return Needs(**merged)

    @property
    def reference(self) -> bool:
        """Whether anything of the frozen reference is needed."""
        return bool(self.reference_logps or self.reference_live)

    @property
    def reference_live(self) -> frozenset[Role]:
        """Roles of which more than log-probs is needed of the reference, which is too much to keep for a whole set."""
        return self.reference_logits | self.reference_hidden


def roles(*members: Role) -> frozenset[Role]:
    """A set of roles, to state needs with."""
    return frozenset(members)


@dataclass(frozen=True)
class Loss(Component, abc.ABC):
    """One term of the objective, minimised.

    A call returns the term's value for every item (answer token or row) of one role, attached to the graph; the
    trainer takes the mean over all such items of the optimizer step, on all ranks and over all accumulation steps, and
    multiplies it by `weight`.

    Args:
        weight: of the term inside its side of the objective (`forget_weight` and `retain_weight` weigh the sides).

    Class attributes, beside those of every component: `unit` (what the mean is taken over), `on` (whose items),
    `needs`, `two_sided` (it pulls rows back as well as pushing them, so the row bound does not hold it), and
    `of_given_reference` (its reference is another model than the one before unlearning: without a `ref_model` there is
    nothing to do).
    """

    weight: float = field(default=1.0, kw_only=True)

    unit: ClassVar[Unit]
    on: ClassVar[Role]
    needs: ClassVar[Needs] = Needs()
    two_sided: ClassVar[bool] = False
    of_given_reference: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        # Below 0 it would turn forgetting into learning, or learning into forgetting.
        self.require("weight", 0 <= self.weight < math.inf, "a finite number, 0 or above")

    @property
    def mismatches(self) -> int:
        """Random retain answers that each forget row must bring along."""
        return 0

    @property
    def layers(self) -> frozenset[float]:
        """Where its hidden states are read: a number of decoder blocks, or a share of the depth below 1."""
        return frozenset()

    @abc.abstractmethod
    def __call__(self, scores: Scores) -> Tensor:
        """Values of the term: [T] for tokens or [R] for rows of the role `on`."""

    def require_layer(self, argument: str) -> None:
        """Raise unless an argument names a layer."""
        problem = layer_problem(getattr(self, argument))
        if problem is not None:
            raise self.argument_error(argument, problem)


@dataclass(frozen=True)
class DistributionLoss(Loss):
    """A term that is a function of the next-token distribution at each answer token of the role `on`.

    It never gets the logits of a whole batch: `at_positions` is called inside the model's forward with a chunk of them
    at a time, and again in the backward pass. Calling the loss then takes the values from the scores.
    """

    @abc.abstractmethod
    def at_positions(self, logits: Tensor, token_ids: Tensor, reference: Tensor | None) -> Tensor:
        """Values of the term: [t].

        Args:
            logits: z_t, [t, V], fp32; differentiable in them.
            token_ids: y_t, [t].
            reference: z_t of the frozen reference, [t, V]; None unless `needs.reference_logits` has the role `on`.
        """

    def grad_logits(self, logits: Tensor, token_ids: Tensor, reference: Tensor | None) -> Tensor | None:
        """The derivative of the values by the logits, [t, V], where it is known; None for autograd's."""
        return None

    def __call__(self, scores: Scores) -> Tensor:
        return scores.readout(self.on)
