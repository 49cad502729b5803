"""What is asked of an output head at the answer tokens of a batch, and what it answers.

The way of one value: a loss's function of a distribution becomes a `TokenReadout` under the name of the loss term, the
head answers a `HeadQuery` of readouts with a `HeadResult`, and the term reads its values there by that name.
"""

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from ..data.roles import Role

# (logits [t, V] in fp32 or fp64, token ids [t], the reference's logits [t, V] or None) -> [t], or [t, width]
PositionFunction = Callable[[Tensor, Tensor, Tensor | None], Tensor]
# (the same) -> the derivative of the values by the logits, [t, V], or None for autograd's
PositionGradient = Callable[[Tensor, Tensor, Tensor | None], Tensor | None]


class ReferenceLogits(Protocol):
    """Where the reference's logits at the tokens of one role come from."""

    def at(self, part: slice, logits: Tensor) -> Tensor:
        """Those of a stretch of the role's tokens, [t, V], in the precision of the model's own `logits` there."""
        ...


@dataclass(frozen=True)
class TokenReadout:
    """What is read of the next-token distributions at the answer tokens of one role, or of all rows of a batch.

    Attributes:
        name: of the values in the result; unique in a query.
        role: whose tokens; None for those of every row, whatever it is there for.
        function: of logits, token ids and the reference's logits; differentiable in the logits.
        gradient: the derivative of the function by the logits where it is known; None, or a result of None, for
            autograd's.
        reference: where the reference's logits come from; None if the function reads none.
        width: values per token.
        alone: whether no loss is differentiated through the log-probs of the same tokens; their derivatives are then
            not computed.
    """

    name: str
    role: Role | None
    function: PositionFunction
    gradient: PositionGradient | None = None
    reference: ReferenceLogits | None = None
    width: int = 1
    alone: bool = False


class LogitCache(enum.Enum):
    """What is kept of the answer positions to have their logits again later, in increasing size."""

    NOTHING = "nothing"
    HIDDEN = "hidden"  # the hidden states; the weights of the head must be there later
    LOGITS = "logits"  # the logits themselves, where those weights are not: another model's, split over ranks


@dataclass(frozen=True)
class HeadQuery:
    """What is asked of one forward at the T answer tokens of a batch.

    Attributes:
        positions: of the hidden states that are read, in the batch laid flat, [T]; [0] if none is.
        targets: the token that follows each, [T].
        tokens: which of the T tokens belong to a role, for the role of every readout; None is all of them.
        readouts: what is read beside the log-probs.
        compute_logps: whether log-probs and readouts are computed at all.
        keep: for later.
    """

    positions: Tensor
    targets: Tensor
    tokens: Mapping[Role | None, slice] = field(default_factory=dict)
    readouts: Sequence[TokenReadout] = ()
    compute_logps: bool = True
    keep: LogitCache = LogitCache.NOTHING

    def __post_init__(self) -> None:
        assert len({readout.name for readout in self.readouts}) == len(self.readouts), "two readouts of one name"

    def count(self, readout: TokenReadout) -> int:
        """Tokens that a readout is of."""
        tokens = self.tokens[readout.role]
        return tokens.stop - tokens.start

    def overlap(self, readout: TokenReadout, chunk: slice) -> tuple[slice, slice]:
        """What a chunk of the T tokens holds of a readout's: as places in the chunk, and among the role's tokens."""
        tokens = self.tokens[readout.role]
        start, stop = max(chunk.start, tokens.start), min(chunk.stop, tokens.stop)
        stop = max(start, stop)
        return slice(start - chunk.start, stop - chunk.start), slice(start - tokens.start, stop - tokens.start)

    def split(self, flat: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The one tensor in which a head puts out its answer, as log-probs [T] and the values by readout."""
        if not self.compute_logps or not self.readouts:
            return flat, {}
        sizes = [self.count(readout) * readout.width for readout in self.readouts]
        logps, *parts = flat.split([len(self.targets), *sizes])
        return logps, {
            readout.name: part if readout.width == 1 else part.view(-1, readout.width)
            for readout, part in zip(self.readouts, parts, strict=True)
        }


@dataclass(frozen=True)
class HeadResult:
    """The answer to a query.

    Attributes:
        logps: log softmax(z_t)[y_t], [T], nats, fp32 (fp64 for a model in fp64); [0] where none was asked for.
        readouts: by name, values at the tokens of the readout's role, [t] or [t, width].
        logits: where the logits of all T tokens can be had again; None unless they were kept.
    """

    logps: Tensor
    readouts: Mapping[str, Tensor]
    logits: ReferenceLogits | None
