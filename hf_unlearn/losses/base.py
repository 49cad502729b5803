"""What a loss is: values of answer tokens or rows, and what it needs for them. No loss lives here."""

import abc
import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from torch import Tensor

from ..data.roles import Role
from ..errors import input_error
from ..scoring import Scores

Unit = Literal["token", "row"]


@dataclass(frozen=True)
class Needs:
    """What a loss must be supplied with, beyond the log-probs of the answer tokens that every loss gets.

    Attributes:
        roles: rows that the batch must hold for it (forget rows are always there).
        logits: roles whose logits [T, V] it reads.
        reference_logps: roles whose log-probs under the frozen reference it reads.
        reference_logits: roles whose logits under the frozen reference it reads.
    """

    roles: frozenset[Role] = frozenset()
    logits: frozenset[Role] = frozenset()
    reference_logps: frozenset[Role] = frozenset()
    reference_logits: frozenset[Role] = frozenset()

    def __or__(self, other: "Needs") -> "Needs":
        merged = {f.name: getattr(self, f.name) | getattr(other, f.name) for f in dataclasses.fields(self)}
        return Needs(**merged)

    @property
    def reference(self) -> bool:
        """Whether anything of the frozen reference is needed."""
        return bool(self.reference_logps or self.reference_logits)


def roles(*members: Role) -> frozenset[Role]:
    """A set of roles, to state needs with."""
    return frozenset(members)


@dataclass(frozen=True)
class Loss(abc.ABC):
    """One term of the objective, minimised.

    A call returns the term's value for every item (answer token or row) of one role, attached to the graph; the
    trainer takes the mean over all such items of the optimizer step, on all ranks and over all accumulation steps, and
    multiplies it by `weight`.

    Args:
        weight: of the term inside its side of the objective (`forget_weight` and `retain_weight` weigh the sides).

    Class attributes: `name` (in configs and logs), `unit` (what the mean is taken over), `on` (whose items), `needs`,
    `formula` and `paper` (what `hf-unlearn methods` prints).
    """

    weight: float = field(default=1.0, kw_only=True)

    name: ClassVar[str]
    unit: ClassVar[Unit]
    on: ClassVar[Role]
    needs: ClassVar[Needs] = Needs()
    formula: ClassVar[str]
    paper: ClassVar[str] = ""

    def __post_init__(self) -> None:
        for each in dataclasses.fields(self):
            value = getattr(self, each.name)
            if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
                raise self.argument_error(each.name, "a number", value)
        # Below 0 it would turn forgetting into learning, or learning into forgetting.
        if not 0 <= self.weight < math.inf:
            raise self.argument_error("weight", "a finite number, 0 or above", self.weight)

    @property
    def mismatches(self) -> int:
        """Random retain answers that each forget row must bring along."""
        return 0

    @abc.abstractmethod
    def __call__(self, scores: Scores) -> Tensor:
        """Values of the term: [T] for tokens or [R] for rows of the role `on`."""

    def argument_error(self, argument: str, expected: str, got: Any) -> ValueError:
        """The error of an argument that the loss cannot be computed with."""
        return input_error(
            expected=f"{argument} of {self.name} to be {expected}",
            got=repr(got),
            why=f"it enters the formula {self.formula}",
            fix="`hf-unlearn methods` lists the arguments of every loss with their defaults",
        )

    def require_positive(self, argument: str) -> None:
        """Raise unless an argument is above zero."""
        if not getattr(self, argument) > 0:
            raise self.argument_error(argument, "above 0", getattr(self, argument))
