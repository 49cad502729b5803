"""`SuppressionReport`: what a suppression at inference does to a model's answers, and what it took. No texts."""

from dataclasses import dataclass, field, fields
from typing import Any

from .edit_report import MeanNll
from .record_parts import ComponentRecord
from .schema import as_json

# Beside every figure of a model whose answers are suppressed at inference.
SUPPRESSION_LABEL = "suppression, the weights still know"
# Where a run's suppressor lies in its folder.
SUPPRESSION_FOLDER, SUPPRESSOR_FILE = "suppression", "suppressor.json"


@dataclass(frozen=True)
class SuppressionReport:
    """What a suppression did.

    Attributes:
        suppression: name, arguments, formula, paper.
        without: levels of the model's weights alone.
        suppressed: levels of the suppressed model.
        fitted: numbers and words of the suppressor, by name: {"alpha": 1.72}.
        level: mean NLL per token that a model without the forget rows would give them; None where unknown.
        label: what it is, in words; beside every figure.
        restores: what removing it restores, in words.
        holds: what of the forget rows can be read in the saved suppressor, in words.
        rows: of each set that was given.
        tokens: read by forward passes of the model, without padding, those of measuring included.
        seconds: of the clock, without measuring.
        cpu_seconds: of this process's threads, without measuring.
        slower: how many times as long the scoring of the forget rows takes with it.
        weights: hash of the model's weights, which are the same before and after.
        identity: hash of the suppressor.
        seed: of what was drawn.
        warnings: what a reader must know of it.
    """

    suppression: ComponentRecord
    without: MeanNll
    suppressed: MeanNll
    fitted: dict[str, Any] = field(default_factory=dict)
    level: float | None = None
    label: str = SUPPRESSION_LABEL
    restores: str = ""
    holds: str = ""
    rows: dict[str, int] = field(default_factory=dict)
    tokens: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    slower: float = 1.0
    weights: str = ""
    identity: str = ""
    seed: int = 0
    warnings: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it; numbers that are not finite are words."""
        return {part.name: as_json(getattr(self, part.name)) for part in fields(SuppressionReport)}
