"""`EditReport`: what an edit of weights tried, chose and moved, and what it took, as JSON. Numbers, and no text."""

from dataclasses import dataclass, field, fields
from typing import Any

from .record_parts import ComponentRecord
from .schema import as_json


@dataclass(frozen=True)
class Tried:
    """What an edit measured on its way.

    Attributes:
        setting: of the edit at this point: {"alpha": 1.25}, {"step": 3}.
        forget_nll: mean NLL per token of the forget rows (mean over rows), nats.
        retain_nll: the same of the retain rows; None where they were not scored.
        chosen: whether the weights were left here.
    """

    setting: dict[str, Any]
    forget_nll: float
    retain_nll: float | None = None
    chosen: bool = False


@dataclass(frozen=True)
class Moved:
    """How far the weights of one kind of layer moved.

    Attributes:
        layers: name that these layers share in every block: "q_proj", "embed_tokens".
        weights: numbers in them.
        changed: share of them that are others now.
        distance: ||after - before|| / ||before||.
    """

    layers: str
    weights: int
    changed: float
    distance: float


@dataclass(frozen=True)
class MeanNll:
    """Mean NLL per answer token (mean over rows), nats; None for a set that is not there.

    Attributes:
        forget: of the forget rows.
        retain: of the retain rows.
        unseen: of the rows that the edit may be fitted to, none of which the model has seen.
    """

    forget: float
    retain: float | None = None
    unseen: float | None = None


@dataclass(frozen=True)
class EditReport:
    """What an edit did.

    Attributes:
        edit: name, arguments, formula, paper.
        before: of the model as it was given.
        after: of the edited model.
        tried: what was measured on the way, in order; () where nothing was.
        moved: by kind of layer, those that moved farthest first.
        level: mean NLL per token that the edit was to bring the forget rows to; None where it has no such aim.
        rows: of each set that was given.
        tokens: read by forward passes, without padding, those of measuring included.
        seconds: of the clock.
        cpu_seconds: of this process's threads.
        merged: whether an adapter was merged into the weights first.
        weights_before: hash of the weights as they were.
        weights_after: hash of the edited weights.
        seed: of what was drawn.
        warnings: what a reader must know of the edit.
    """

    edit: ComponentRecord
    before: MeanNll
    after: MeanNll
    tried: list[Tried] = field(default_factory=list)
    moved: list[Moved] = field(default_factory=list)
    level: float | None = None
    rows: dict[str, int] = field(default_factory=dict)
    tokens: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    merged: bool = False
    weights_before: str = ""
    weights_after: str = ""
    seed: int = 0
    warnings: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it; numbers that are not finite are words."""
        return {part.name: as_json(getattr(self, part.name)) for part in fields(EditReport)}
